"""Uploads: the body is the file. It is streamed to a folder of its own, checked, and read by a separate process."""

import asyncio
import errno
import hashlib
import time
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import TypeVar

import anyio.to_thread
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from api import digests
from api.bodies import declared_length, refuse_encoded
from api.parts import Parts
from api.services import quotas
from api.services.workspace import working_folder
from stillhouse.spec.errors import InvalidData, StillhouseError, TooLarge, Unavailable, UnsupportedMedia

Row = TypeVar("Row")

_WRITE_BYTES = 1024 * 1024
IDLE_SECONDS = 60.0
"""An upload that brings nothing for this long is given up."""
SLOWEST_BYTES_PER_SECOND = 1024
"""An upload that is slower than this, `IDLE_SECONDS` after its beginning or later, is given up too."""


async def receive(request: Request, parts: Parts, read: Callable[[Path], Row], *, smaller: str) -> Row:
    """Take an upload from the wire and let `read` bring it into the record. Whatever fails, nothing of it is left.

    `read` gets the path of the file, in a folder of its own that it may use. `smaller` says how such a file can be
    made smaller. Raises RateLimited, QuotaExceeded, UnsupportedMedia,
    TooLarge, InvalidData, Unavailable.
    """
    too_large = TooLarge(
        f"The file is larger than the limit of {parts.settings.limits.max_upload_bytes:,} bytes.", hint=smaller
    )
    caller = await run_in_threadpool(quotas.count_upload, parts, request)
    _check_headers(request, parts.settings.limits.max_upload_bytes, too_large)
    await run_in_threadpool(quotas.check_room, parts, caller.project_id, declared_length(request) or 0)
    expected = digests.expected_sha256(request.headers)
    with working_folder(parts.settings) as folder:
        path = folder / "upload"
        digests.check(expected, await _write(request, path, parts.settings.limits.max_upload_bytes, too_large))
        # Readers take minutes and memory: a few at a time, and never the threads that answer everybody else.
        return await anyio.to_thread.run_sync(read, path, limiter=parts.readers)


def _check_headers(request: Request, limit: int, too_large: TooLarge) -> None:
    refuse_encoded(request)
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type.startswith("multipart/"):
        raise UnsupportedMedia(
            "The body must be the file itself, not a form.",
            hint="curl --data-binary @FILE -H 'Content-Type: application/octet-stream' "
            f"-H 'Authorization: Bearer shk_…' 'http://…{request.url.path}?name=NAME'",
        )
    declared = declared_length(request)
    if declared is not None and declared > limit:
        raise too_large


async def _write(request: Request, path: Path, limit: int, too_large: TooLarge) -> bytes:
    """Write the body to `path`; returns its SHA-256."""
    digest, total, waiting, begun = hashlib.sha256(), 0, bytearray(), time.monotonic()
    try:
        with path.open("xb") as file:
            chunks = request.stream()
            while (chunk := await _next(chunks)) is not None:
                total += len(chunk)
                if total > limit:
                    raise too_large
                if total < SLOWEST_BYTES_PER_SECOND * (time.monotonic() - begun - IDLE_SECONDS):
                    raise _cut_off(f"The file came slower than {SLOWEST_BYTES_PER_SECOND:,} bytes a second.")
                digest.update(chunk)
                waiting += chunk
                if len(waiting) >= _WRITE_BYTES:
                    await run_in_threadpool(file.write, waiting)
                    waiting = bytearray()
            await run_in_threadpool(file.write, waiting)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise Unavailable("There is no room for the upload just now.", hint="Try later, or a smaller file.") from error
    return digest.digest()


async def _next(chunks: AsyncGenerator[bytes, None]) -> bytes | None:
    try:
        async with asyncio.timeout(IDLE_SECONDS):
            return await anext(chunks, None)
    except TimeoutError:
        raise _cut_off(f"Nothing arrived for {IDLE_SECONDS:g} seconds.") from None


def _cut_off(detail: str) -> StillhouseError:
    return InvalidData.at("/file", "cut_off", detail, hint="Send the file again.")
