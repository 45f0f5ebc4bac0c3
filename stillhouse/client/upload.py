"""A file to the service: streamed, with its length and digest, and sent once."""

import base64
import hashlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx2
from pydantic import ValidationError

from stillhouse.client.download import OnProgress
from stillhouse.client.transport import Params, Transport
from stillhouse.spec.base import Contract
from stillhouse.spec.errors import FieldError, Invalid
from stillhouse.spec.problems import field_errors

_CHUNK_BYTES = 1024 * 1024
# The service reads and checks the whole upload before it answers.
_ANSWER_SECONDS = 3600.0


def upload(
    transport: Transport, route: str, path: Path, *, params: Params, shown: str, on_progress: OnProgress | None
) -> httpx2.Response:
    """POST the file to `route`; `shown` is what `on_progress` calls it.

    It arrives whole or is refused (Repr-Digest). Not sent again when the answer is lost: it might be stored twice.
    Raises OSError when it cannot be read, and what the service says.
    """
    headers = {
        "Content-Type": "application/octet-stream",
        "Content-Length": str(path.stat().st_size),
        "Repr-Digest": _digest(path),
    }
    return transport.request(
        "POST",
        route,
        params=params,
        headers=headers,
        content=lambda: _chunks(path, shown, on_progress),
        repeatable=False,
        answer_seconds=_ANSWER_SECONDS,
    )


def name_of(path: Path) -> str:
    """The file's name, as far as a thing of the service may be called that."""
    return (re.sub(r"[^\w .:@+\-]|^[^\w]", "_", path.name) or "upload")[:100]


def check_options(options: type[Contract], given: Mapping[str, Any]) -> None:
    """Refuse options that cannot be right before the file is sent: it may be large. Raises Invalid."""
    try:
        options.model_validate(given)
    except ValidationError as error:
        wrong = [
            FieldError(pointer=f"?{e.pointer.split('/')[1]}", code=e.code, detail=e.detail)
            for e in field_errors(error, given, options)
        ]
        raise Invalid("The upload's options are wrong.", errors=wrong) from error


def _digest(path: Path) -> str:
    """Repr-Digest of RFC 9530."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").digest()
    return f"sha-256=:{base64.b64encode(digest).decode()}:"


def _chunks(path: Path, shown: str, on_progress: OnProgress | None) -> Iterator[bytes]:
    total, done = path.stat().st_size, 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk
            done += len(chunk)
            if on_progress is not None:
                on_progress(shown, done, total)
