"""A service for tests of its clients: the real API behind a real socket, and a hand that plays the worker.

The hand writes through `models.lifecycle`, as a worker does: a test decides when a job moves and what it leaves.
"""

import hashlib
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import uvicorn

from api.__main__ import server_config
from api.main import create_app
from core.db import Database
from core.settings import Settings
from core.storage import make_storage
from models import events, keys, lifecycle
from models.artifact import ArtifactRow
from models.base import db_now
from models.lifecycle import Lease, Note
from models.model import ModelRow
from stillhouse.client import Client
from stillhouse.spec.events import ModelConfig
from stillhouse.spec.facts import DataFacts
from stillhouse.spec.ids import new_id
from stillhouse.spec.limits import Limits
from stillhouse.spec.report import Latency, Measured, Report, TargetResult
from stillhouse.spec.views import JobError

SPEC: dict[str, Any] = {
    "teacher": {"train": {"architecture": {"name": "mlp", "hidden": [64]}, "epochs": 2}},
    "dataset": {"builtin": "digits"},
    "student": {"name": "mlp", "hidden": [8]},
    "temperature": 4,
}
"""The four-field spec."""


@dataclass
class House:
    """A running API on a database of its own."""

    url: str
    key: str
    project: str
    settings: Settings
    database: Database

    def client(self, **options: Any) -> Client:
        """A client with the house's key; `url` may name a proxy before it."""
        return Client(options.pop("url", self.url), self.key, **options)

    def take_up(self, job_id: str) -> Lease:
        """queued → running."""
        with self.database.write() as session:
            lease = lifecycle.claim(session, job_id, "wrk_test", lease_seconds=600)
        assert lease is not None
        return lease

    def advance(self, lease: Lease, *, phase: str = "distilling", step: int, steps: int = 100, **values: float) -> None:
        """Report progress, and one value of each named series at that step."""
        progress = {
            "phase": phase,
            "epoch": 1 + 9 * step // steps,
            "epochs": 10,
            "step": step,
            "steps": steps,
            "eta_seconds": 12.0,
        }
        points = [{"name": f"{phase}/{name}", "step": step, "value": value} for name, value in values.items()]
        with self.database.write() as session:
            assert events.add_metrics(session, lease, points) or not points
            assert lifecycle.report_progress(session, lease, phase=phase, progress=progress)

    def say(self, lease: Lease, message: str) -> None:
        """Add a line to the job's log."""
        with self.database.write() as session:
            assert lifecycle.add_event(session, lease.job_id, Note(type="log", message=message), lease=lease)

    def succeed(self, lease: Lease, files: dict[str, bytes], *, verdict: str | None = None) -> None:
        """running → succeeded with these files."""
        storage = make_storage(self.settings)
        rows = []
        with tempfile.TemporaryDirectory() as folder, self.database.write() as session:
            now = db_now(session)
            for name, content in files.items():
                path = Path(folder) / "file"
                path.write_bytes(content)
                key = f"projects/{self.project}/jobs/{lease.job_id}/{uuid4().hex}"
                storage.put(key, path)
                rows.append(
                    ArtifactRow(
                        job_id=lease.job_id,
                        name=name,
                        kind="weights",
                        storage_key=key,
                        bytes=len(content),
                        sha256=hashlib.sha256(content).hexdigest(),
                        created_at=now,
                    )
                )
            student = self._student(lease, now)
            values = {
                "report": report(met=verdict != "below_target").model_dump(mode="json"),
                "verdict": verdict,
                "student_model_id": student.id,
                "phase": None,
                "progress": None,
            }
            assert lifecycle.succeed(session, lease, values)
            session.add_all([student, *rows])

    def fail(self, lease: Lease, error: JobError) -> None:
        """running → failed."""
        with self.database.write() as session:
            assert lifecycle.fail(session, lease, error)

    def cancelled(self, lease: Lease) -> None:
        """cancelling → cancelled."""
        with self.database.write() as session:
            assert lifecycle.cancelled(session, lease)

    def _student(self, lease: Lease, now: Any) -> ModelRow:
        config = ModelConfig(
            architecture={"name": "mlp", "hidden": [8]},  # type: ignore[arg-type]
            facts=DataFacts(
                task="image-classification",
                shape=(1, 8, 8),
                dtype="uint8",
                classes=tuple("0123456789"),
                rows={"train": 1257, "validation": 270, "test": 270},
            ),
            mean=[0.3],
            std=[0.4],
            parameters=610,
            preprocessing="Feed pixels as they are stored.",
        )
        return ModelRow(
            id=new_id("mdl"),
            project_id=self.project,
            job_id=lease.job_id,
            name="test student",
            role="student",
            config=config.model_dump(mode="json"),
            weights_key="none",
            bytes=2440,
            sha256="0" * 64,
            accuracy=0.93,
            created_at=now,
        )


@contextmanager
def open_house(folder: Path, template: Path, broker_url: str) -> Iterator[House]:
    """Serve a copy of the migrated database `template` until the block ends."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "record.db").write_bytes(template.read_bytes())
    settings = Settings(
        data_dir=folder,
        database_url=f"sqlite:///{folder / 'record.db'}",
        broker_url=broker_url,
        queue=f"q{uuid4().hex[:12]}",
        secret_key="test-only-" + "x" * 32,  # type: ignore[arg-type]
        log_level="error",
        limits=Limits(max_upload_bytes=32_000_000),
    )
    database = Database(f"sqlite:///{folder / 'record.db'}")
    with database.write() as session:
        project = keys.project_named(session, "default").id
        key = keys.issue(session, project, name="test", scope="admin")
    with serve(server_config(settings, create_app(settings))) as url:
        yield House(url=url, key=key, project=project, settings=settings, database=database)
    database.close()


@contextmanager
def serve(config: uvicorn.Config) -> Iterator[str]:
    """Run a uvicorn server in a thread, on a free port; yields its address."""
    config.host, config.port = "127.0.0.1", 0
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(20)
    assert not thread.is_alive()


def report(*, met: bool = True) -> Report:
    """A report as a job leaves it."""

    def measured(role: str, accuracy: float, agreement: float | None, parameters: int) -> Measured:
        return Measured(
            role=role,
            architecture="mlp 64-8-10",
            accuracy=accuracy,
            accuracy_interval=(accuracy - 0.02, accuracy + 0.02),
            errors=round(270 * (1 - accuracy)),
            rows=270,
            loss=0.1,
            agreement=agreement,
            parameters=parameters,
            size_bytes=4 * parameters,
            latency=[Latency(batch=b, median_ms=0.01 * b, p90_ms=0.02 * b, runs=100, threads=1) for b in (1, 64)],
            per_class_accuracy={},
        )

    return Report(
        models=[
            measured("teacher", 0.98, None, 4810),
            measured("student", 0.93, 0.94, 610),
            measured("baseline", 0.90, 0.91, 610),
        ],
        gap_recovered=0.375,
        targets=[TargetResult(name="min_accuracy", wanted=0.95 if not met else 0.9, measured=0.93, met=met)],
        device="cpu",
    )
