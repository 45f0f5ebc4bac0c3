"""Answers with the bytes of one stored file: whole, a range of it, or the word that the caller has it already."""

from base64 import b64encode
from collections.abc import Iterator
from itertools import chain
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from api import conditional, ranges
from api.middleware import wants_no_body
from api.problems import render
from api.views import media_type
from core.storage import Storage
from models.artifact import ArtifactRow
from stillhouse.spec.errors import RangeNotSatisfiable

CACHE_CONTROL = "private, no-cache"
"""Kept by the caller alone, and asked for again each time: a 304 costs little, and keys can be revoked."""


def answer(request: Request, row: ArtifactRow, storage: Storage) -> Response:
    """The file of `row`, as the request's headers ask for it."""
    etag = conditional.quoted(row.sha256)
    if conditional.none_match(dict(request.scope["headers"]).get(b"if-none-match"), etag.encode()):
        return Response(status_code=304, headers={"ETag": etag, "Cache-Control": CACHE_CONTROL})
    headers = _headers(row, etag)
    if wants_no_body(request):
        return Response(media_type=media_type(row), headers={**headers, "Content-Length": str(row.bytes)})
    wanted = request.headers.get("range")
    if not conditional.range_applies(request.headers.get("if-range"), etag):
        wanted = None
    try:
        part = ranges.wanted(wanted, row.bytes)
    except ranges.BadRange:
        return _bad_range(request, row)
    start, end = (0, row.bytes) if part is None else (part.start, part.end)
    if part is not None:
        headers["Content-Range"] = part.content_range(row.bytes)
    return StreamingResponse(
        opened(storage, row.storage_key, start, end),
        status_code=200 if part is None else 206,
        media_type=media_type(row),
        headers={**headers, "Content-Length": str(end - start)},
    )


def opened(storage: Storage, key: str, start: int, end: int) -> Iterator[bytes]:
    """The bytes; the first are read at once, so that a missing file is an error and not half an answer."""
    chunks = storage.read(key, start=start, end=end)
    return chain([next(chunks, b"")], chunks)


def attachment(name: str) -> str:
    """Content-Disposition that saves as `name` (RFC 6266)."""
    if name.isascii() and name.isprintable() and not set(name) & set('"\\/'):
        return f'attachment; filename="{name}"'
    return f"attachment; filename*=UTF-8''{quote(name, safe='')}"


def _headers(row: ArtifactRow, etag: str) -> dict[str, str]:
    digest = b64encode(bytes.fromhex(row.sha256)).decode()
    return {
        "ETag": etag,
        "Accept-Ranges": "bytes",
        "Repr-Digest": f"sha-256=:{digest}:",
        "Content-Disposition": attachment(row.name),
        "Cache-Control": CACHE_CONTROL,
    }


def _bad_range(request: Request, row: ArtifactRow) -> Response:
    error = RangeNotSatisfiable(
        f"The range is not within the {row.bytes:,} bytes of {row.name}.",
        hint="Ask for one range, such as `Range: bytes=0-99`, or for the whole file.",
    )
    return render(error, request.state.request_id, {"Content-Range": f"bytes */{row.bytes}"})
