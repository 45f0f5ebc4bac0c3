"""Teacher outputs between a trainer, the record and the storage: found, made by one for all, and stored for later jobs.

The trainer knows the key of what it needs and nothing else. Its supervisor looks it up: there is a file, or it is this
job's turn to make it, or another job is at it, and the answer waits. What was made goes into the storage beside the
training, in a thread of its own.
"""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import structlog

from core.db import Database, is_outage
from core.settings import Settings
from core.storage import Storage
from models import teacher_outputs
from models.lifecycle import Lease
from models.teacher_outputs import Turn
from stillhouse.spec.errors import NotFound, Unavailable
from stillhouse.spec.events import LogLine, OutputsMade, OutputsPlace, OutputsWanted
from worker.staging import Staged

log = structlog.get_logger()

_RETRY_SECONDS = 0.5


class Desk:
    """Serves the trainer of one attempt."""

    def __init__(
        self,
        database: Database,
        storage: Storage,
        settings: Settings,
        lease: Lease,
        staged: Staged,
        *,
        lost: Callable[[], bool],
    ) -> None:
        self._database, self._storage, self._settings = database, storage, settings
        self._lease, self._staged, self._lost = lease, staged, lost
        self._folder = settings.work_dir / "cache" / "teacher-outputs" / staged.project_id
        self._asked: OutputsWanted | None = None
        self._told = False
        self._read: dict[str, tuple[str, Path]] = {}
        """By key what the trainer was told to read: where it is stored, and the file it was shown."""
        self._storing: list[threading.Thread] = []

    def take(self, event: OutputsWanted | OutputsMade) -> None:
        """Remember what the trainer says."""
        if isinstance(event, OutputsWanted):
            self._asked, self._told = event, False
        elif event.kept:
            storing = threading.Thread(target=self._store, args=(event.key,), daemon=True)
            storing.start()
            self._storing.append(storing)
        else:
            self._again(lambda: self._give_up(event.key))

    def answer(self) -> OutputsPlace | LogLine | None:
        """What to tell the trainer now, or the job's log once; None: nothing yet."""
        if (asked := self._asked) is None:
            return None
        try:
            place = self._place(asked)
        except Exception as error:
            if not is_outage(error) and not isinstance(error, Unavailable):
                raise
            log.warning("outputs not looked up", job_id=self._lease.job_id, error=type(error).__name__)
            return None  # asked again in the next round
        if place is not None:
            self._asked = None
            return place
        if self._told:
            return None
        self._told = True
        return LogLine(message="Another job is working out the same teacher outputs: this one waits for them.")

    def close(self) -> None:
        """Return once what was made is stored, or the lease is lost."""
        for storing in self._storing:
            while storing.is_alive() and not self._lost():
                storing.join(timeout=0.1)

    def _place(self, asked: OutputsWanted) -> OutputsPlace | None:
        if asked.damaged:
            self._forget(asked.key)
        turn = self._turn(asked)
        self._remove(*turn.evicted)
        if turn.what == "wait":
            return None
        if turn.storage_key is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            return OutputsPlace(path=str(self._made(asked.key)), ready=False)
        try:
            path = self._storage.fetch(turn.storage_key, self._folder)
        except NotFound:
            path = self._made(asked.key)  # nothing is there: the trainer will say so, and it is made again
        self._read[asked.key] = (turn.storage_key, path)
        return OutputsPlace(path=str(path), ready=True)

    def _turn(self, asked: OutputsWanted) -> Turn:
        with self._database.write() as session:
            return teacher_outputs.turn(
                session,
                self._staged.project_id,
                self._lease,
                asked,
                dataset_id=self._staged.dataset_id,
                teacher_model_id=self._staged.order.spec.teacher.model,
                max_bytes=self._settings.limits.max_outputs_bytes,
            )

    def _forget(self, key: str) -> None:
        if key not in self._read:
            return
        stored, path = self._read[key]
        with self._database.write() as session:
            teacher_outputs.forget(session, self._staged.project_id, key, stored)
        del self._read[key]
        path.unlink(missing_ok=True)
        self._remove(stored)

    def _store(self, key: str) -> None:
        """Into the storage and on record. The trainer has the file mapped and needs its name no more."""
        stored = teacher_outputs.file_key(self._staged.project_id, key, self._lease.job_id, self._lease.attempt)
        try:
            self._storage.put(stored, self._made(key))
        except (Unavailable, OSError) as error:
            log.warning("outputs not stored", job_id=self._lease.job_id, error=type(error).__name__)
            self._again(lambda: self._give_up(key))
            return
        # Where nobody can tell whether they are on record, the file stays: who takes the claim over removes it.
        if self._again(lambda: self._ready(key, stored)) is False:
            self._remove(stored)
        self._made(key).unlink(missing_ok=True)

    def _ready(self, key: str, stored: str) -> bool:
        with self._database.write() as session:
            return teacher_outputs.ready(session, self._staged.project_id, self._lease, key, storage_key=stored)

    def _give_up(self, key: str) -> bool:
        with self._database.write() as session:
            teacher_outputs.give_up(session, self._staged.project_id, self._lease, key)
        return True

    def _again(self, write: Callable[[], bool]) -> bool | None:
        """Write while the lease holds, however often the database is away. None: it was lost before there was an
        answer."""
        while not self._lost():
            try:
                return write()
            except Exception as error:
                if not is_outage(error):
                    raise
                time.sleep(_RETRY_SECONDS)
        return None

    def _remove(self, *stored: str) -> None:
        """Files nobody refers to any more. One that stays takes room and does no other harm."""
        for key in stored:
            try:
                self._storage.delete(key)
            except Unavailable as error:
                log.warning("outputs not removed", storage_key=key, error=type(error).__name__)

    def _made(self, key: str) -> Path:
        """Where a trainer of this machine makes them. The same for each attempt, so that it goes on with what the one
        before has left."""
        return self._folder / f"{key}.safetensors"
