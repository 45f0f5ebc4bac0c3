"""A service of real processes for the tests of faults: workers and reconcilers to start, stop, freeze and kill."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import select

from core.broker import Doorbell
from core.db import Database
from core.settings import Settings
from core.storage import make_storage, sha256_of
from models import datasets, events, jobs
from models.job import JobRow
from models.worker import WorkerRow
from stillhouse.spec import JobSpec, Limits, StoredDataset, resolve
from stillhouse.spec.ids import new_id

PATIENCE_SECONDS = 400
"""How long a test waits for what must happen. No test asserts that it happened faster."""

ANY_DATABASE = pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
"""For a test of what the trainer, the broker or the storage does: no statement of it depends on the database."""


def eventually(happened: Callable[[], Any], what: str, *, seconds: float = PATIENCE_SECONDS) -> Any:
    """The first true answer of `happened`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if answer := happened():
            return answer
        time.sleep(0.02)
    raise AssertionError(f"never happened: {what}")


def spec(*, epochs: int = 2, teacher_epochs: int = 1, **changes: Any) -> dict[str, Any]:
    """A small job on digits."""
    return {
        "teacher": {"train": {"architecture": {"name": "mlp", "hidden": [16]}, "epochs": teacher_epochs}},
        "dataset": {"builtin": "digits"},
        "student": {"name": "mlp", "hidden": [8]},
        "training": {"epochs": epochs, "batch_size": 32},
        "evaluation": {"baseline": False},
        "export": {"onnx": False},
    } | changes


@dataclass
class Service:
    """Processes of one test."""

    settings: Settings
    database: Database
    project: str
    folder: Path
    digits: tuple[Path, StoredDataset]
    processes: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    def start_worker(self, **env: str) -> "subprocess.Popen[bytes]":
        """A worker that is up: its heartbeat is in the database."""
        known = self._workers()
        process = self._start("worker", "worker", **env)
        eventually(lambda: self._workers() - known or self._died(process), "a worker registers")
        return process

    def start_reconciler(self) -> "subprocess.Popen[bytes]":
        """A running reconciler."""
        return self._start("reconciler", "worker.reconciler")

    def submit(self, body: dict[str, Any], *, ring: bool = True, project: str | None = None) -> str:
        """What the API does with a valid job: a row, then a doorbell. `project`: instead of the service's own."""
        path, stored = self.digits
        owner = project or self.project
        wanted = JobSpec.model_validate(body)
        with self.database.write() as session:
            data = datasets.by_builtin(session, owner, "digits")
            if data is None:
                key = f"projects/{owner}/datasets/digits.safetensors"
                make_storage(self.settings).put(key, path)
                data = datasets.add(
                    session,
                    owner,
                    id=new_id("ds"),
                    name="digits",
                    format="builtin",
                    builtin="digits",
                    storage_key=key,
                    bytes=path.stat().st_size,
                    sha256=sha256_of(path),
                    stored=stored,
                )
            resolved = resolve(wanted, stored.facts, Limits())
            job_id = jobs.create(session, owner, spec=wanted, resolved=resolved, dataset_id=data.id).id
        if ring:
            self.ring(job_id)
        return job_id

    def ring(self, job_id: str) -> bool:
        """Ring for a job."""
        doorbell = Doorbell(self.settings)
        try:
            return doorbell.ring(job_id)
        finally:
            doorbell.close()

    def job(self, job_id: str) -> JobRow:
        """The row as it is now."""
        with self.database.read() as session:
            row = session.get(JobRow, job_id)
        assert row is not None
        return row

    def messages(self, job_id: str) -> list[str]:
        """What the job's events say."""
        with self.database.read() as session:
            return [event.message for event in events.page(session, job_id, after=0, limit=10_000)]

    def wait(self, job_id: str, *statuses: str) -> JobRow:
        """The row once it has one of these statuses."""

        def reached() -> JobRow | None:
            row = self.job(job_id)
            return row if row.status in statuses else None

        try:
            found: JobRow = eventually(reached, f"the job is {' or '.join(statuses)}")
        except AssertionError:
            row = self.job(job_id)
            raise AssertionError(
                f"{row.status} {row.phase} {row.error} {self.messages(job_id)}\n{self.logs()}"
            ) from None
        return found

    def wait_training(self, job_id: str, *, attempt: int = 1) -> None:
        """Return once an attempt has trained a step or more."""

        def training() -> bool:
            row = self.job(job_id)
            assert row.finished_at is None, (row.status, row.error)
            trains = row.phase == "distilling" and (row.progress or {}).get("step", 0) > 0
            return row.status == "running" and row.attempt == attempt and trains

        try:
            eventually(training, "the job trains")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.messages(job_id)}\n{self.logs()}") from None

    def logs(self) -> str:
        """The ends of the processes' logs."""
        return "\n".join(f"== {p.name}\n{p.read_text(errors='replace')[-3000:]}" for p in self.folder.glob("*.log"))

    def stop(self) -> None:
        """End everything at once."""
        for process in self.processes:
            for member in [*family(process.pid), process.pid]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(member, signal.SIGKILL)
            process.wait()

    def _start(self, name: str, module: str, **env: str) -> "subprocess.Popen[bytes]":
        with (self.folder / f"{name}-{len(self.processes)}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", module],
                env=environment(self.settings) | env,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def _died(self, process: "subprocess.Popen[bytes]") -> bool:
        assert process.poll() is None, self.logs()
        return False

    def _workers(self) -> set[str]:
        with self.database.read() as session:
            return set(session.scalars(select(WorkerRow.id)))


def environment(settings: Settings) -> dict[str, str]:
    """The environment variables that say what `settings` says."""
    set_fields = {name: getattr(settings, name) for name in settings.model_fields_set}
    secret = set_fields.pop("secret_key", None)
    env = {
        f"STILLHOUSE_{name.upper()}": ",".join(value) if isinstance(value, tuple) else str(value)
        for name, value in set_fields.items()
    }
    if secret is not None:
        env["STILLHOUSE_SECRET_KEY"] = secret.get_secret_value()
    return os.environ | env | {"PYTHONUNBUFFERED": "1"}


def family(pid: int) -> list[int]:
    """All descendants of a process."""
    try:
        return [child.pid for child in psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def pool_process(worker: "subprocess.Popen[bytes]") -> int:
    """The supervisor: the worker's one child."""
    return int(eventually(lambda: _children(worker.pid), "the worker has a pool process")[0])


def fork_server(worker: "subprocess.Popen[bytes]") -> int:
    """The process that forks trainers."""
    return int(eventually(lambda: _children(pool_process(worker)), "the supervisor has a fork server")[0])


def trainer(worker: "subprocess.Popen[bytes]") -> int:
    """The trainer at work."""
    return int(eventually(lambda: _children(fork_server(worker)), "a trainer works")[0])


def gone(pid: int) -> bool:
    """True when a process has ended."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _children(pid: int) -> list[int]:
    try:
        return [child.pid for child in psutil.Process(pid).children()]
    except psutil.NoSuchProcess:
        return []


def each(folder: Path) -> Iterator[Path]:
    """All files below a folder."""
    # Not rglob: it stumbles over a folder that goes while it walks.
    found = (Path(place) / name for place, _, names in os.walk(folder) for name in names)
    return (path for path in found if path.is_file())
