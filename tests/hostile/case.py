"""What a hostile input is, and what must come of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlencode


@dataclass(frozen=True, kw_only=True)
class Case:
    """One request and the answer it must get."""

    name: str
    body: Callable[[], bytes] = bytes
    """Made when the case runs: no large or dangerous file lies in the repository."""
    method: str = "POST"
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    status: int
    code: str = ""
    """Of the problem; empty where the answer is none."""
    entry: str = ""
    """Code of one of the problem's `errors`."""
    pointer: str = ""
    """How the pointer of that entry begins."""


@dataclass(frozen=True, kw_only=True)
class Raw:
    """Bytes on a connection, and the status of each answer until the server closes it."""

    name: str
    sent: Callable[[str], bytes]
    """From a key that may do everything, what is sent."""
    statuses: tuple[int, ...]
    code: str = ""
    """Of the last answer's problem; empty where it is none."""


Row = tuple[str, Callable[[], bytes], str, str] | tuple[str, Callable[[], bytes], str, str, dict[str, str]]

_STATUS = {"invalid_data": 422, "too_large": 413, "unsupported_media": 415, "": 201}


def uploads(path: str, rows: list[Row]) -> list[Case]:
    """Cases from rows of name, maker, `problem code/entry code`, pointer, and what else the query says."""
    cases = []
    for name, body, outcome, pointer, *more in rows:
        query = urlencode({"name": "t", **(more[0] if more else {})})  # type: ignore[dict-item]
        code, _, entry = outcome.partition("/")
        cases.append(
            Case(
                name=name,
                body=body,
                path=f"{path}?{query}",
                status=_STATUS[code],
                code=code,
                entry=entry,
                pointer=pointer,
            )
        )
    return cases
