"""JSON bodies, read as bytes under a limit and checked for what JSON leaves open: double keys, depth, non-numbers."""

import asyncio
import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, Any

from fastapi import Depends
from starlette.requests import Request

from api.auth import Project
from api.parts import InParts
from stillhouse.spec.errors import FieldError, Invalid, StillhouseError, TooLarge, UnsupportedMedia

MAX_DEPTH = 32
MAX_OPENED = 20_000
"""Objects and lists in a body: each costs far more time than the two bytes it takes to write."""
MAX_ERRORS = 100
"""Entries an answer lists at most: a small body can hold very many mistakes."""
_READ_SECONDS = 30
# Strings are skipped whole, closed or not, so that the scan is linear in the body.
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class JsonBody:
    """A body that is well-formed JSON."""

    raw: bytes
    value: Any
    """Parsed, to find the places that errors point to."""


async def json_body(request: Request, parts: InParts, _caller: Project) -> JsonBody:
    """Read the body, once the caller is known. Raises UnsupportedMedia, TooLarge or Invalid."""
    require_json(request)
    limit = parts.settings.limits.max_body_bytes
    try:
        async with asyncio.timeout(_READ_SECONDS):
            raw = await _read(request, limit)
    except TimeoutError:
        raise _invalid("too_slow", f"The body did not arrive within {_READ_SECONDS} seconds.") from None
    return JsonBody(raw=raw, value=parse(raw))


async def optional_body(request: Request, parts: InParts, caller: Project) -> JsonBody | None:
    """The body where one may be left out; None when it is empty. Raises what `json_body` raises."""
    if not declared_length(request) and "transfer-encoding" not in request.headers:
        return None
    return await json_body(request, parts, caller)


def declared_length(request: Request) -> int | None:
    """Content-Length; the server has checked that it is a number."""
    text = request.headers.get("content-length")
    return int(text) if text is not None and text.isdecimal() else None


def refuse_encoded(request: Request) -> None:
    """Raises UnsupportedMedia for a compressed body: a small one may unfold to anything."""
    if request.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise UnsupportedMedia("A body with Content-Encoding is not read.", hint="Send it uncompressed.")


def require_json(request: Request) -> None:
    """Raises UnsupportedMedia unless the body claims to be plain JSON."""
    refuse_encoded(request)
    given = request.headers.get("content-type", "")
    if given.partition(";")[0].strip().lower() != "application/json":
        raise UnsupportedMedia(
            "The body must be JSON.", hint="Send it with the header `Content-Type: application/json`."
        )


def parse(raw: bytes) -> Any:
    """Parse strictly. Raises Invalid with a pointer where one can be given."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _invalid("not_utf8", f"The body is not UTF-8: byte {error.start} starts no character.") from None
    deepest, opened = _nesting(raw)
    if deepest > MAX_DEPTH:
        raise _invalid("too_deep", f"The body nests deeper than {MAX_DEPTH} levels.")
    if opened > MAX_OPENED:
        raise _invalid("too_many_values", f"The body has more than {MAX_OPENED:,} objects and lists.")
    try:
        value = json.loads(text, object_pairs_hook=_Object)
    except json.JSONDecodeError as error:
        detail = f"The body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}."
        raise _invalid("not_json", detail) from None
    except ValueError:
        raise _invalid("number_too_long", "The body has a number with too many digits.") from None
    if wrong := list(islice(_faults(value, ""), MAX_ERRORS)):
        raise Invalid("The body is not plain JSON.", errors=wrong)
    return value


class _Object(dict[str, Any]):
    """An object that remembers which of its keys stood twice."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        counts = Counter(name for name, _ in pairs) if len(pairs) > len(self) else {}
        self.doubled = sorted(name for name, count in counts.items() if count > 1)


def _faults(value: Any, pointer: str) -> Iterator[FieldError]:
    if isinstance(value, _Object):
        for name in value.doubled:
            place = f"{pointer}/{escaped(name)}"
            yield FieldError(pointer=place, code="duplicate_key", detail="This key stands more than once; keep one.")
        for name, item in value.items():
            yield from _faults(item, f"{pointer}/{escaped(name)}")
    elif isinstance(value, list):
        for position, item in enumerate(value):
            yield from _faults(item, f"{pointer}/{position}")
    elif isinstance(value, float) and not math.isfinite(value):
        yield FieldError(pointer=pointer, code="not_finite", detail="Should be a finite number.")


def escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


def _nesting(raw: bytes) -> tuple[int, int]:
    """How deep the brackets nest, and how many are opened."""
    deepest = depth = opened = 0
    for token in _TOKEN.finditer(raw):
        first = token.group()[:1]
        if first in b"[{":
            depth += 1
            opened += 1
            deepest = max(deepest, depth)
        elif first in b"]}":
            depth -= 1
    return deepest, opened


async def _read(request: Request, limit: int) -> bytes:
    declared = declared_length(request)
    if declared is not None and declared > limit:
        raise _too_large(limit)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise _too_large(limit)
    return bytes(body)


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"The body is larger than the limit of {limit:,} bytes.", hint="Send a smaller one.")


def _invalid(code: str, detail: str) -> StillhouseError:
    return Invalid.at("", code, detail)


Body = Annotated[JsonBody, Depends(json_body)]
OptionalBody = Annotated[JsonBody | None, Depends(optional_body)]
