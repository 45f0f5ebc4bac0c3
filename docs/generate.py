"""Write docs/reference.md from the code: every setting, limit, error, option, student, loss and route.

`make docs` runs it; a test holds the page against the code.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from api.main import create_app
from core.settings import Settings
from stillhouse.spec.errors import FAILURE_CODES, error_classes
from stillhouse.spec.limits import Limits
from stillhouse.spec.losses import LOSSES
from stillhouse.spec.states import JobStatus, Phase
from stillhouse.spec.students import STUDENTS
from stillhouse.spec.teachers import TeacherQuery
from stillhouse.spec.upload import DATA_CODES, IngestOptions
from stillhouse.spec.webhook import WEBHOOK_ERRORS

PAGE = Path(__file__).with_name("reference.md")


def reference() -> str:
    """The whole page."""
    sections = [
        "# Reference\n\nMade from the code by `make docs`; do not edit.",
        _section("Routes", ("method and path", "what"), _routes()),
        _section(
            "Students", ("name", "what", "dials"), ((f"`{n}`", _first(c), _fields(c)) for n, c in STUDENTS.items())
        ),
        _section("Losses", ("kind", "what", "dials"), ((f"`{n}`", _first(c), _fields(c)) for n, c in LOSSES.items())),
        _section(
            "States",
            ("status", "meaning", "final"),
            ((f"`{s}`", s.wording, "yes" if s.final else "") for s in JobStatus),
        ),
        _section("Phases", ("phase",), ((f"`{p}`",) for p in Phase)),
        _section("Errors of the API", ("code", "status", "title"), _errors()),
        _section(
            "Failures of jobs", ("code", "meaning"), ((f"`{c}`", text) for c, text in sorted(FAILURE_CODES.items()))
        ),
        _section("Failures of webhooks", ("code", "meaning"), ((f"`{c}`", text) for c, text in WEBHOOK_ERRORS.items())),
        _section("Options of uploaded data", ("query parameter", "default", "what"), _options(IngestOptions)),
        _section("Options of uploaded teachers", ("query parameter", "default", "what"), _options(TeacherQuery)),
        _section(
            "What can be wrong with an upload",
            ("code", "meaning"),
            ((f"`{c}`", text) for c, text in DATA_CODES.items()),
        ),
        _section("Settings", ("variable", "default", "what"), _settings(Settings, "STILLHOUSE_")),
        _section("Limits", ("variable", "default", "what"), _settings(Limits, "STILLHOUSE_LIMITS__")),
    ]
    return "\n\n".join(sections) + "\n"


def _section(title: str, columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [f"## {title}", "", _row(columns), _row(["---"] * len(columns)), *map(_row, rows)]
    return "\n".join(lines)


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("\n", " ").replace("|", "\\|") for cell in cells) + " |"


def _routes() -> Iterable[tuple[str, str]]:
    for path, methods in sorted(create_app().openapi()["paths"].items()):
        for method, operation in sorted(methods.items()):
            what = (operation.get("description") or operation.get("summary") or "").split("\n\n")[0]
            yield f"`{method.upper()} {path}`", what


def _errors() -> Iterable[tuple[str, str, str]]:
    for code, cls in sorted(error_classes().items()):
        yield f"`{code}`", str(cls.status or "–"), cls.title


def _settings(model: type[BaseModel], prefix: str) -> Iterable[tuple[str, str, str]]:
    for name, field in model.model_fields.items():
        if isinstance(field.default, BaseModel):
            continue
        default = "" if field.default is None else f"`{field.default}`"
        yield f"`{prefix}{name.upper()}`", default, " ".join((field.description or "").split())


def _options(model: type[BaseModel]) -> Iterable[tuple[str, str, str]]:
    for name, field in model.model_fields.items():
        default = "" if field.default in (None, ()) else f"`{field.default}`"
        yield f"`{name}`", default, " ".join((field.description or "").split())


def _first(cls: type[Any]) -> str:
    return " ".join((cls.__doc__ or "").split("\n\n")[0].split())


def _fields(cls: type[BaseModel]) -> str:
    shown = ((name, field) for name, field in cls.model_fields.items() if name not in ("name", "kind"))
    return ", ".join(f"`{name}`" if field.is_required() else f"`{name}` ({field.default})" for name, field in shown)


if __name__ == "__main__":
    PAGE.write_text(reference())
