"""Uploads: the body is the file. It is streamed to a folder of its own, checked, and read by a separate process."""

import asyncio
import errno
import hashlib
from collections.abc import AsyncGenerator
from functools import partial
from pathlib import Path
from typing import Literal

import anyio.to_thread
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from api import digests
from api.bodies import declared_length, refuse_encoded
from api.parts import Parts
from api.services.ingesting import Source, store, working_folder
from models.dataset import DatasetRow
from stillhouse.spec.base import Name
from stillhouse.spec.errors import InvalidData, TooLarge, Unavailable, UnsupportedMedia
from stillhouse.spec.upload import IngestOptions, UploadFormat

_WRITE_BYTES = 1024 * 1024
IDLE_SECONDS = 60.0
"""An upload that brings nothing for this long is given up."""


class UploadQuery(IngestOptions):
    """What the file is called, and how to read it."""

    name: Name
    """What you call the dataset; need not be unique."""
    format: UploadFormat | Literal["auto"] = "auto"
    """What the bytes are. auto: they tell themselves."""

    def options(self) -> IngestOptions:
        """The part the reader needs."""
        return IngestOptions.model_validate(self.model_dump(exclude={"name", "format"}))


async def receive(request: Request, parts: Parts, project_id: str, query: UploadQuery) -> DatasetRow:
    """Take an upload from the wire into the record. Whatever fails, nothing of it is left.

    Raises UnsupportedMedia, TooLarge, InvalidData, Unavailable.
    """
    _check_headers(request, parts.settings.limits.max_upload_bytes)
    expected = digests.expected_sha256(request.headers)
    with working_folder(parts.settings) as folder:
        path = folder / "upload"
        digests.check(expected, await _write(request, path, parts.settings.limits.max_upload_bytes))
        source = Source(name=query.name, path=path, format=query.format, options=query.options())
        # Readers take minutes and memory: a few at a time, and never the threads that answer everybody else.
        return await anyio.to_thread.run_sync(partial(store, parts, project_id, source, folder), limiter=parts.readers)


def _check_headers(request: Request, limit: int) -> None:
    refuse_encoded(request)
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type.startswith("multipart/"):
        raise UnsupportedMedia(
            "The body must be the file itself, not a form.",
            hint="curl --data-binary @FILE -H 'Content-Type: application/octet-stream' "
            "-H 'Authorization: Bearer shk_…' 'http://…/v1/datasets?name=NAME'",
        )
    declared = declared_length(request)
    if declared is not None and declared > limit:
        raise _too_large(limit)


async def _write(request: Request, path: Path, limit: int) -> bytes:
    """Write the body to `path`; returns its SHA-256."""
    digest, total, waiting = hashlib.sha256(), 0, bytearray()
    try:
        with path.open("xb") as file:
            chunks = request.stream()
            while (chunk := await _next(chunks)) is not None:
                total += len(chunk)
                if total > limit:
                    raise _too_large(limit)
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
        raise InvalidData.at(
            "/file", "cut_off", f"Nothing arrived for {IDLE_SECONDS:g} seconds.", hint="Send the file again."
        ) from None


def _too_large(limit: int) -> TooLarge:
    return TooLarge(
        f"The file is larger than the limit of {limit:,} bytes.", hint="Upload fewer rows, or as compressed Parquet."
    )
