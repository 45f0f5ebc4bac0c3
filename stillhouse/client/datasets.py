"""Datasets: upload and look up."""

import base64
import hashlib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from pydantic import ValidationError

from stillhouse.client.download import OnProgress
from stillhouse.client.pages import each
from stillhouse.client.transport import Transport, parse
from stillhouse.spec.errors import FieldError, Invalid
from stillhouse.spec.problems import field_errors
from stillhouse.spec.upload import IngestOptions, UploadFormat
from stillhouse.spec.views import Dataset

_CHUNK_BYTES = 1024 * 1024
# The service reads and checks the whole upload before it answers.
_ANSWER_SECONDS = 3600.0


class Datasets:
    """`client.datasets`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def add(
        self,
        path: str | Path,
        *,
        name: str | None = None,
        format: UploadFormat | None = None,
        label: str | None = None,
        split_column: str | None = None,
        ignore: Iterable[str] = (),
        validation: float | None = None,
        test: float | None = None,
        seed: int | None = None,
        bad_rows: Literal["reject", "drop"] | None = None,
        unlabelled: Literal["reject", "keep"] | None = None,
        image_size: int | None = None,
        on_progress: OnProgress | None = None,
    ) -> Dataset:
        """Upload a CSV, Parquet, .npz or ZIP of class folders; it is checked and stored when this returns.

        The options are those of `stillhouse.spec.upload.IngestOptions`; what is None is left to the service.
        `name`: the file's name when None. The file is streamed and arrives whole or is refused (Repr-Digest).
        Not sent again when the answer is lost: it might be stored twice.
        Raises OSError when the file cannot be read; Invalid, InvalidData, TooLarge, UnsupportedMedia.
        """
        path = Path(path)
        options = {
            "label": label,
            "split_column": split_column,
            "ignore": tuple(ignore) or None,
            "validation": validation,
            "test": test,
            "seed": seed,
            "bad_rows": bad_rows,
            "unlabelled": unlabelled,
            "image_size": image_size,
        }
        given = {key: value for key, value in options.items() if value is not None}
        _check(given)
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(path.stat().st_size),
            "Repr-Digest": _digest(path),
        }
        response = self._transport.request(
            "POST",
            "/v1/datasets",
            params={"name": name or _name_of(path), "format": format, **given},
            headers=headers,
            content=lambda: _chunks(path, on_progress),
            repeatable=False,
            answer_seconds=_ANSWER_SECONDS,
        )
        return parse(Dataset, response)

    def get(self, dataset_id: str) -> Dataset:
        """One dataset, with its facts and data report. Raises NotFound."""
        return parse(Dataset, self._transport.get(f"/v1/datasets/{quote(dataset_id, safe='')}"))

    def list(self, *, limit: int | None = None) -> Iterator[Dataset]:
        """Datasets, newest first."""
        return each(self._transport, "/v1/datasets", Dataset, limit=limit)


def _name_of(path: Path) -> str:
    """The file's name, as far as a dataset may be called that."""
    return (re.sub(r"[^\w .:@+\-]|^[^\w]", "_", path.name) or "upload")[:100]


def _check(given: dict[str, Any]) -> None:
    """Refuse options that cannot be right before the file is sent: it may be large."""
    try:
        IngestOptions.model_validate(given)
    except ValidationError as error:
        wrong = [
            FieldError(pointer=f"?{e.pointer.removeprefix('/')}", code=e.code, detail=e.detail)
            for e in field_errors(error, given)
        ]
        raise Invalid("The upload's options are wrong.", errors=wrong) from error


def _digest(path: Path) -> str:
    """Repr-Digest of RFC 9530."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").digest()
    return f"sha-256=:{base64.b64encode(digest).decode()}:"


def _chunks(path: Path, on_progress: OnProgress | None) -> Iterator[bytes]:
    total, done = path.stat().st_size, 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk
            done += len(chunk)
            if on_progress is not None:
                on_progress(path.name, done, total)
