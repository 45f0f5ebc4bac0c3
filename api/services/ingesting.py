"""From a file to a dataset: read by a process of its own, kept in the storage, then recorded. Or nothing of it."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from api.parts import Parts
from core.ingest_child import ingest
from core.settings import Settings
from core.storage import sha256_of
from models import datasets
from models.dataset import DatasetRow
from stillhouse.spec.errors import Unavailable
from stillhouse.spec.ids import new_id
from stillhouse.spec.upload import IngestOptions, IngestRequest, UploadFormat


@dataclass(frozen=True, kw_only=True)
class Source:
    """What is read: an uploaded file, or data that comes with the service."""

    name: str
    path: Path | None = None
    builtin: str | None = None
    format: UploadFormat | str = "auto"
    options: IngestOptions = field(default_factory=IngestOptions)


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
    try:
        parts.storage.put(key, output)
        with parts.database.write() as session:
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
    except BaseException:
        _drop_unless_recorded(parts, project_id, dataset_id, key)
        raise


def _drop_unless_recorded(parts: Parts, project_id: str, dataset_id: str, key: str) -> None:
    """A commit whose answer got lost may have happened: then, or when nobody can say, the file stays."""
    try:
        with parts.database.read() as session:
            recorded = datasets.get(session, project_id, dataset_id) is not None
    except SQLAlchemyError:
        return
    if not recorded:
        with suppress(Unavailable):  # the caller learns of the first fault, not of this one
            parts.storage.delete(key)


@contextmanager
def working_folder(settings: Settings) -> Iterator[Path]:
    """A folder for one upload, gone at the end; locked meanwhile, so that `sweep` leaves it alone."""
    home = _home(settings)
    with _locked(home, fcntl.LOCK_SH):
        folder = Path(tempfile.mkdtemp(dir=home))
        descriptor = os.open(folder, os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def sweep(settings: Settings) -> None:
    """Remove what uploads of a killed process left: the folders nobody holds any more."""
    home = _home(settings)
    with _locked(home, fcntl.LOCK_EX):
        for folder in home.iterdir():
            # A locked one belongs to a process that lives.
            with suppress(BlockingIOError, FileNotFoundError), _locked(folder, fcntl.LOCK_EX | fcntl.LOCK_NB):
                shutil.rmtree(folder, ignore_errors=True)


def _home(settings: Settings) -> Path:
    home = settings.work_dir / "uploads"
    home.mkdir(parents=True, exist_ok=True)
    return home


@contextmanager
def _locked(folder: Path, kind: int) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, kind)
        yield
    finally:
        os.close(descriptor)
