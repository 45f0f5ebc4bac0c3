"""Checkpoints between a trainer, the storage and the record.

The trainer writes files into a folder of its attempt and says so. Each is stored and recorded beside the training, by
a thread of its own, so that an attempt on any machine goes on from it; a storage that is away or full costs no more
than that. The folder itself outlives the attempt: what could not be stored in time is found by the next attempt on
the same machine.
"""

import os
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from pydantic import Field, ValidationError

from core.db import Database, is_outage
from core.settings import Settings
from core.storage import Storage, sha256_of
from models import checkpoints, holds, lifecycle
from models.checkpoint import CheckpointRow
from models.checkpoints import KEPT, Unneeded, number_of
from models.lifecycle import Lease, Note
from stillhouse.spec.base import View
from stillhouse.spec.errors import NotFound, Unavailable
from stillhouse.spec.events import CheckpointSaved
from stillhouse.spec.states import STUDENT_PHASES

log = structlog.get_logger()

_RETRY_SECONDS = 2.0


class Told(View):
    """What lies beside a checkpoint's file."""

    saved: CheckpointSaved
    points: int
    """Metric points of the job told before it."""
    unsent: list[dict[str, Any]] = Field(default_factory=list)
    """Those of them that were not written down by then, as the database was away."""


@dataclass(frozen=True, kw_only=True)
class _Found:
    """A checkpoint an attempt could go on from."""

    attempt: int
    told: Told
    path: Path | None
    """On this machine."""
    row: CheckpointRow | None
    """On record."""


@dataclass(frozen=True, kw_only=True)
class _Waiting:
    """A file to be stored."""

    told: Told
    path: Path
    ready: Callable[[], bool]


class Vault:
    """The checkpoints of one attempt."""

    def __init__(
        self,
        database: Database,
        storage: Storage,
        settings: Settings,
        lease: Lease,
        project_id: str,
        *,
        lost: Callable[[], bool],
    ) -> None:
        self._database, self._storage, self._settings = database, storage, settings
        self._lease, self._project_id, self._lost = lease, project_id, lost
        self._job_folder = job_folder(settings, lease.job_id)
        self.folder = self._job_folder / f"a{lease.attempt}"
        """Where the trainer writes."""
        self._staged: dict[str, Told] = {}
        self.has_student = False
        """True when one of the files the trainer may go on from holds a student that has begun to learn."""
        self._lock = threading.Condition()
        self._next: _Waiting | None = None
        self._closing = False
        self._refused = False
        self._thread = threading.Thread(target=self._store_forever, name="checkpoints", daemon=True)

    def stage(self) -> None:
        """Bring the newest two into the folder. Raises Unavailable when they cannot be had now; it may be called again
        then."""
        self._staged, self.has_student = {}, False
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        for found in self._candidates():
            if len(self._staged) == KEPT:
                break
            name = found.told.saved.file
            if name not in self._staged and self._bring(found, self.folder / name):
                self._staged[name] = found.told
                self.has_student |= found.told.saved.phase in STUDENT_PHASES
                (self.folder / name).with_suffix(".json").write_text(found.told.model_dump_json())
        self._thread.start()

    def told_of(self, file: str) -> Told | None:
        """What was said of a checkpoint the trainer could go on from."""
        return self._staged.get(file)

    def take(self, told: Told, *, ready: Callable[[], bool]) -> None:
        """The trainer has written one. It is recorded once it is `ready`: once the points before it are."""
        path = self.folder / told.saved.file
        held = self.folder / f"{path.stem}.upload"
        try:
            path.with_suffix(".json").write_text(told.model_dump_json())
            os.link(path, held)  # the trainer removes its older files by itself
        except OSError as error:
            log.warning("checkpoint not taken", job_id=self._lease.job_id, error=type(error).__name__)
            return
        with self._lock:
            if self._next is not None:
                self._next.path.unlink(missing_ok=True)  # the newer one is worth more
            self._next = _Waiting(told=told, path=held, ready=ready)
            self._lock.notify_all()

    def close(self, *, seconds: float) -> None:
        """Let what was written be stored, for at most `seconds`."""
        deadline = time.monotonic() + seconds
        with self._lock:
            while self._next is not None and not self._lost() and time.monotonic() < deadline:
                self._lock.wait(timeout=0.1)
            self._closing = True
            self._lock.notify_all()
        self._thread.join(timeout=max(1.0, deadline - time.monotonic()))

    def _candidates(self) -> list[_Found]:
        with self._database.read() as session:
            rows = {(row.attempt, row.number): row for row in checkpoints.newest(session, self._lease.job_id)}
        found = {place: _Found(attempt=place[0], told=_of_row(row), path=None, row=row) for place, row in rows.items()}
        for folder in _attempts(self._job_folder):
            attempt = _attempt_of(folder)
            if attempt < self._lease.attempt:
                for path, told in _told_in(folder):
                    place = attempt, number_of(path.name)
                    found[place] = _Found(attempt=attempt, told=told, path=path, row=rows.get(place))
        return [found[place] for place in sorted(found, reverse=True)]

    def _bring(self, found: _Found, target: Path) -> bool:
        """False when the file is damaged or gone, wherever it should be."""
        digest = found.told.saved.sha256
        if found.path is not None and _is(found.path, digest):
            _link_or_copy(found.path, target)
            return True
        if found.row is None:
            return False
        try:
            source = self._storage.fetch(found.row.storage_key, self._settings.work_dir / "cache" / "checkpoints")
        except NotFound:
            self._report_damaged(found)
            return False
        if not _is(source, digest):
            self._report_damaged(found)
            return False
        shutil.copyfile(source, target)
        return True

    def _report_damaged(self, found: _Found) -> None:
        number = found.told.saved.file.partition(".")[0].lstrip("0")
        message = f"Checkpoint {number} is damaged or gone in the storage: the one before it is used, if there is one."
        with self._database.write() as session:
            note = Note(type="checkpoint", level="warning", message=message, data={"number": int(number or 0)})
            lifecycle.add_event(session, self._lease.job_id, note, lease=self._lease)

    def _store_forever(self) -> None:
        while True:
            with self._lock:
                while self._next is None and not self._closing:
                    self._lock.wait(timeout=1.0)
                if self._closing or self._lost():
                    return
                assert self._next is not None
                waiting = self._next
            done = self._store(waiting.told, waiting.path, waiting.ready)
            with self._lock:
                newer = self._next is not waiting
                if done:
                    self._next = self._next if newer else None
                    waiting.path.unlink(missing_ok=True)
                self._lock.notify_all()
                if not done and not newer and not self._closing:
                    self._lock.wait(timeout=_RETRY_SECONDS)

    def _store(self, told: Told, held: Path, ready: Callable[[], bool]) -> bool:
        """True when it is on record, or never will be."""
        key = f"{prefix_of(self._project_id, self._lease.job_id)}/a{self._lease.attempt}/{told.saved.file}"
        try:
            if not _is(held, told.saved.sha256):
                return True  # it changed after it was written, or a newer one has taken its place
            self._storage.put(key, held)
            if not ready():
                return False
            if not self._record(told, key):
                self._storage.delete(key)
                return True
        except Exception as error:
            if not isinstance(error, Unavailable | OSError) and not is_outage(error):
                log.exception("checkpoint not stored", job_id=self._lease.job_id)
                return True
            self._say_refused(error)
            return False
        if self._refused:
            self._refused = False
            self._note("info", "Checkpoints are stored again.")
        self._tidy()
        return True

    def _record(self, told: Told, key: str) -> bool:
        with self._database.write() as session:
            return checkpoints.add(session, self._lease, told.saved, storage_key=key, points=told.points)

    def _say_refused(self, error: Exception) -> None:
        log.warning("checkpoint not stored", job_id=self._lease.job_id, error=type(error).__name__)
        if not self._refused:
            self._refused = True
            self._note("warning", "A checkpoint could not be stored. The job goes on, and it is tried again.")

    def _note(self, level: str, message: str) -> None:
        try:
            with self._database.write() as session:
                note = Note(type="checkpoint", level=level, message=message)
                lifecycle.add_event(session, self._lease.job_id, note, lease=self._lease)
        except Exception as error:
            if not is_outage(error):
                raise

    def _tidy(self) -> None:
        """What the newest makes needless."""
        try:
            tidy(self._database, self._storage, job_id=self._lease.job_id)
        except Exception as error:
            if not isinstance(error, Unavailable) and not is_outage(error):
                raise
        for folder in _attempts(self._job_folder):
            if _attempt_of(folder) < self._lease.attempt:
                shutil.rmtree(folder, ignore_errors=True)


def prefix_of(project_id: str, job_id: str) -> str:
    """Where the checkpoints of a job are kept."""
    return f"projects/{project_id}/jobs/{job_id}/checkpoints"


def job_folder(settings: Settings, job_id: str) -> Path:
    """Where the checkpoints of a job lie on this machine."""
    return settings.work_dir / "checkpoints" / job_id


def tidy(database: Database, storage: Storage, *, job_id: str | None = None) -> int:
    """Remove checkpoints nobody needs any more, of one job or of all. Returns how many. Raises Unavailable."""
    with database.read() as session:
        gone = [] if holds.in_force(session) else checkpoints.unneeded(session, job_id=job_id)
    for one in gone:
        _remove(database, storage, one)
    return len(gone)


def forget_local(database: Database, settings: Settings) -> None:
    """Remove from this machine the checkpoints of jobs that are over."""
    root = settings.work_dir / "checkpoints"
    names = [folder.name for folder in root.iterdir()] if root.is_dir() else []
    if not names:
        return
    with database.read() as session:
        over = checkpoints.over(session, names)
    for name, attempt in over.items():
        # One that is being tried again meanwhile has a newer folder, and keeps it.
        for folder in _attempts(root / name):
            if _attempt_of(folder) <= attempt:
                shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):
            (root / name).rmdir()


def _remove(database: Database, storage: Storage, one: Unneeded) -> None:
    storage.delete(one.storage_key)
    with database.write() as session:
        checkpoints.forget(session, one)


def _of_row(row: CheckpointRow) -> Told:
    saved = {
        "file": f"{row.number:06d}.checkpoint",
        "bytes": row.bytes,
        "sha256": row.sha256,
        "phase": row.phase,
        "epoch": row.epoch,
        "step": row.step,
        "steps": row.steps,
        "loss": row.loss,
        "best": row.best,
    }
    return Told(saved=CheckpointSaved.model_validate(saved), points=row.points)


def _attempts(job: Path) -> list[Path]:
    return [folder for folder in job.iterdir() if folder.name.removeprefix("a").isdecimal()] if job.is_dir() else []


def _attempt_of(folder: Path) -> int:
    return int(folder.name.removeprefix("a"))


def _told_in(folder: Path) -> list[tuple[Path, Told]]:
    """Files of an earlier attempt on this machine of which its supervisor has heard."""
    found = []
    for path in folder.glob("*.checkpoint"):
        try:
            found.append((path, Told.model_validate_json(path.with_suffix(".json").read_bytes())))
        except (OSError, ValidationError):
            continue
    return found


def _is(path: Path, digest: str) -> bool:
    try:
        return sha256_of(path) == digest
    except OSError:
        return False


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
