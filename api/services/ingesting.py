"""From a file to a dataset: read by a process of its own, kept in the storage, then recorded. Or nothing of it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from sqlalchemy.orm import Session

from api.parts import Parts
from api.services.workspace import keep
from core.ingest_child import ingest
from core.storage import sha256_of
from models import datasets
from models.dataset import DatasetRow
from stillhouse.spec.base import Name
from stillhouse.spec.ids import new_id
from stillhouse.spec.upload import IngestOptions, IngestRequest, UploadFormat

SMALLER = "Upload fewer rows, or as compressed Parquet."
"""How an upload that is too much gets smaller."""


class UploadQuery(IngestOptions):
    """What the file is called, and how to read it."""

    name: Name
    """What you call the dataset; need not be unique."""
    format: UploadFormat | Literal["auto"] = "auto"
    """What the bytes are. auto: they tell themselves."""

    def options(self) -> IngestOptions:
        """The part the reader needs."""
        return IngestOptions.model_validate(self.model_dump(exclude={"name", "format"}))


@dataclass(frozen=True, kw_only=True)
class Source:
    """What is read: an uploaded file, or data that comes with the service."""

    name: str
    path: Path | None = None
    builtin: str | None = None
    format: UploadFormat | str = "auto"
    options: IngestOptions = field(default_factory=IngestOptions)


def take(parts: Parts, project_id: str, query: UploadQuery, path: Path) -> DatasetRow:
    """Read the uploaded file at `path` as `query` says. Raises as `store` does."""
    source = Source(name=query.name, path=path, format=query.format, options=query.options())
    return store(parts, project_id, source, path.parent)


def store(parts: Parts, project_id: str, source: Source, folder: Path) -> DatasetRow:
    """Read `source`, using `folder` for what lies in between, and record the dataset.

    Raises what `core.ingest_child.ingest` raises, and Unavailable; nothing is left then.
    """
    dataset_id = new_id("ds")
    output = folder / "dataset.safetensors"
    request = IngestRequest.model_validate(
        {
            "source": None if source.path is None else str(source.path),
            "builtin": source.builtin,
            "format": source.format,
            "output": str(output),
            "options": source.options,
            "limits": parts.settings.limits,
        }
    )
    stored = ingest(request)
    key = f"projects/{project_id}/datasets/{dataset_id}.safetensors"

    def add(session: Session) -> DatasetRow:
        return datasets.add(
            session,
            project_id,
            id=dataset_id,
            name=source.name,
            builtin=source.builtin,
            format=stored.format,
            storage_key=key,
            bytes=output.stat().st_size,
            sha256=sha256_of(output),
            stored=stored.dataset,
        )

    return keep(
        parts, project_id, key, output, add=add, find=lambda session: datasets.get(session, project_id, dataset_id)
    )
