"""`python -m operate.limits [PROJECT]`: show limits of projects, or set those of one in place of the service's.

A change is in force at once; for requests, within ten seconds. `default` takes a limit back to the service's setting.

Exit status: 0 done · 2 not done.
"""

import argparse
import sys
from collections.abc import Sequence

from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError

from core.settings import Settings, WrongSettings
from models import project_limits
from operate.opening import Refused, answer, complain, opened
from stillhouse.spec.limits import ProjectLimits

NAMES = tuple(ProjectLimits.model_fields)


def change(settings: Settings, project: str | None, changes: dict[str, int | None]) -> dict[str, ProjectLimits]:
    """Limits by the name of the project, after the changes. Raises Refused, and what the database does."""
    database = opened(settings)
    try:
        with database.write() as session:
            if project is None:
                return project_limits.every(session)
            limits = project_limits.change(session, project, changes)
    finally:
        database.close()
    if limits is None:
        raise Refused(f"There is no project {project}. `python -m api.keys create --project {project} …` makes it.")
    return {project: limits}


def main(arguments: Sequence[str] | None = None) -> int:
    """Show or set limits."""
    args = _parser().parse_args(arguments)
    changes = {name: given[0] for name in NAMES if (given := getattr(args, name)) is not None}
    if changes and args.project is None:
        return complain("Name the project whose limits are to be set.")
    try:
        settings = Settings()
        found = change(settings, args.project, changes)
    except (Refused, WrongSettings) as error:
        return complain(str(error))
    except ValidationError as error:
        wrong = error.errors()[0]
        return complain(f"--{str(wrong['loc'][0]).replace('_', '-')}: {wrong['msg']}")
    except SQLAlchemyError as error:
        return complain(f"The database does not answer: {type(error).__name__}.")
    shown = {name: limits.model_dump() for name, limits in found.items()}
    lines = [f"{name}  {_in_words(limits, settings)}" for name, limits in found.items()]
    answer({"projects": shown}, lines, as_json=args.json)
    return 0


def _in_words(limits: ProjectLimits, settings: Settings) -> str:
    def told(name: str) -> str:
        own = getattr(limits, name)
        return f"{name} {getattr(settings.limits, name):,} (default)" if own is None else f"{name} {own:,}"

    return ", ".join(told(name) for name in NAMES)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="stillhouse limits", description=(__doc__ or "").partition("\n\n")[2])
    parser.add_argument("project", nargs="?", help="name of a project; without it, all are shown")
    for name in NAMES:
        described = ProjectLimits.model_fields[name].description
        parser.add_argument(f"--{name.replace('_', '-')}", type=_limit, metavar="N|default", help=described)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    return parser


def _limit(text: str) -> tuple[int | None]:
    """In a tuple, so that `default` differs from what was not given."""
    return (None if text == "default" else int(text),)


if __name__ == "__main__":
    sys.exit(main())
