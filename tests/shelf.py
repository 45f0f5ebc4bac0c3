"""A project with real files: jobs as they end, things put into the trash, sweeps."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import func, select, update

from core.db import Database
from core.storage import Storage, make_storage
from models import jobs, results, stored_files, teacher_outputs, trash
from models.base import Base
from models.dataset import DatasetRow
from models.job import JobRow
from models.model import ModelRow
from stillhouse.spec.events import OutputsWanted
from tests.house import House
from tests.worker.hooked import Hooked
from worker.retention import sweep

PLACES = (("sqlite", "folder"), ("postgres", "folder"), ("sqlite", "s3"))
"""Kinds of database and storage on which what concerns both is tested."""
Row = JobRow | DatasetRow | ModelRow
CONTENT = b"canary"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
WEBHOOK = {"url": "https://example.com/hook"}


@dataclass
class Shelf:
    """A project with real files."""

    house: House
    hooked: Hooked
    folder: Path

    @property
    def database(self) -> Database:
        return self.house.database

    @property
    def storage(self) -> Storage:
        return make_storage(self.house.settings)

    def job(self, *, key: str | None = None) -> str:
        """A job that succeeded, on a dataset of its own, with an artifact that is also its student's weights, kept
        outputs, metrics, a webhook and an idempotency key."""
        job_id = self.hooked.submit(WEBHOOK)
        self._store_dataset(job_id)
        lease = self.house.take_up(job_id)
        self.house.advance(lease, step=1, loss=0.5)
        wanted = OutputsWanted(key=key or job_id, teacher="mlp", views=1, top_k=None, rows=1, bytes=1)
        with self.database.write() as session:
            dataset_id = session.get_one(JobRow, job_id).dataset_id
            turn = teacher_outputs.turn(
                session, self.house.project, lease, wanted, dataset_id=dataset_id, teacher_model_id=None, max_bytes=99
            )
            if turn.what == "make":
                stored = teacher_outputs.file_key(self.house.project, wanted.key, job_id, 1)
                self.put(stored)
                assert teacher_outputs.ready(session, self.house.project, lease, wanted.key, storage_key=stored)
            jobs.remember(session, self.house.project, f"key of {job_id}", body_sha256="0" * 64, job_id=job_id)
        self.house.succeed(lease, {"model.safetensors": b"weights", "report.json": b"{}"})
        with self.database.write() as session:
            [file] = [a for a in results.artifacts(session, job_id) if a.name == "model.safetensors"]
            same = {"weights_key": file.storage_key, "bytes": file.bytes, "sha256": file.sha256}
            session.execute(update(ModelRow).where(ModelRow.job_id == job_id).values(**same))
        return job_id

    def student(self, job_id: str) -> str:
        found = self.read(JobRow, job_id).student_model_id
        assert found is not None
        return str(found)

    def put(self, key: str, content: bytes = CONTENT) -> None:
        """A file in the storage."""
        path = self.folder / "file"
        path.write_bytes(content)
        self.storage.put(key, path)

    def delete(self, table: type[Row], id: str, *, days: float = 0) -> None:
        """Into the trash, where it has been long enough unless `days` are given."""
        with self.database.write() as session:
            row = trash.locked(session, table, self.house.project, id)
            assert row is not None
            assert trash.readers(session, row) == []
            trash.put(session, row, days=days)

    def read(self, table: type[Any], id: str) -> Any:
        with self.database.read() as session:
            return session.get(table, id)

    def sweep(self, storage: Storage | None = None, **settings: Any) -> int:
        return sweep(self.database, storage or self.storage, self.house.settings.model_copy(update=settings)).purged

    def files(self) -> set[str]:
        return {entry.key for entry in self.storage.entries()}

    def named(self) -> set[str]:
        with self.database.read() as session:
            return {file.key for file in stored_files.named(session) if file.kept}

    def counts(self) -> dict[str, int]:
        with self.database.read() as session:
            tables = Base.metadata.tables
            return {n: session.execute(select(func.count()).select_from(t)).scalar_one() for n, t in tables.items()}

    def _store_dataset(self, job_id: str) -> None:
        dataset_id = self.read(JobRow, job_id).dataset_id
        key = f"projects/{self.house.project}/datasets/{dataset_id}.safetensors"
        self.put(key)
        with self.database.write() as session:
            session.execute(
                update(DatasetRow)
                .where(DatasetRow.id == dataset_id)
                .values(storage_key=key, bytes=len(CONTENT), sha256=SHA256)
            )
