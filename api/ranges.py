"""Range headers (RFC 9110 §14): one slice of a file, or all of it."""

import re
from dataclasses import dataclass

_SPEC = re.compile(r"(?P<first>[0-9]{0,18})-(?P<last>[0-9]{0,18})", re.ASCII)
_MAX_RANGES = 8


@dataclass(frozen=True)
class Slice:
    """Bytes from `start` up to `end` (exclusive)."""

    start: int
    end: int

    def content_range(self, size: int) -> str:
        """Value of the Content-Range header."""
        return f"bytes {self.start}-{self.end - 1}/{size}"


class BadRange(ValueError):
    """The header is not a range, or lies outside the file."""


def wanted(header: str | None, size: int) -> Slice | None:
    """The slice of a file of `size` bytes; None for the whole file.

    Several ranges at once, and units other than bytes, are answered with the whole file, as the RFC allows.
    Raises BadRange for what cannot be read as ranges, or lies beyond the end.
    """
    if header is None:
        return None
    unit, equals, specs = header.partition("=")
    if not equals:
        raise BadRange(header)
    if unit.strip().lower() != "bytes":
        return None
    slices = [_slice(spec.strip(), size) for spec in _split(specs)]
    satisfiable = [part for part in slices if part is not None]
    if not satisfiable:
        raise BadRange(header)
    return satisfiable[0] if len(slices) == 1 else None


def _split(specs: str) -> list[str]:
    parts = specs.split(",")
    if len(parts) > _MAX_RANGES:
        raise BadRange("too many ranges")
    return parts


def _slice(spec: str, size: int) -> Slice | None:
    """The slice a spec names; None when it lies outside. Raises BadRange when it is none."""
    match = _SPEC.fullmatch(spec)
    if match is None or spec == "-":
        raise BadRange(spec)
    first, last = match["first"], match["last"]
    if not first:
        return Slice(max(0, size - int(last)), size) if int(last) and size else None
    if last and int(last) < int(first):
        raise BadRange(spec)
    end = min(size, int(last) + 1) if last else size
    return Slice(int(first), end) if int(first) < size else None
