"""The course of one attempt: what its trainer says is passed on, and what is asked of the job is passed to it."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

import structlog

from core.db import Database, is_outage
from core.settings import Settings
from models import lifecycle
from models.lifecycle import Lease
from stillhouse.spec.errors import FAILURE_CODES
from stillhouse.spec.events import (
    Asked,
    CheckpointSaved,
    Failed,
    Finished,
    OutputsMade,
    OutputsPlace,
    OutputsWanted,
    PhaseStarted,
    Progress,
    Resumed,
    Stopped,
    TrainerEvent,
)
from stillhouse.spec.states import STUDENT_PHASES, JobStatus
from worker.checkpoints import Told, Vault
from worker.lease import Heart
from worker.outputs import Desk
from worker.reports import Reporter
from worker.staging import Staged
from worker.trainers import Trainer

log = structlog.get_logger()


class Stop(Enum):
    """Why an attempt was stopped from outside."""

    CANCELLED = auto()
    PUT_ASIDE = auto()
    """Its checkpoint is written, or could not be in time."""
    LEASE_LOST = auto()


@dataclass(frozen=True)
class Died:
    """The trainer ended without a result."""

    reason: str
    facts: dict[str, Any] = field(default_factory=dict)
    """What is known of its end."""


Outcome = Finished | Failed | Died | Stop


class Course:
    """Follows one trainer to its end."""

    def __init__(
        self,
        database: Database,
        settings: Settings,
        heart: Heart,
        lease: Lease,
        staged: Staged,
        trainer: Trainer,
        desk: Desk,
        vault: Vault,
    ) -> None:
        self._database, self._settings, self._heart, self._lease = database, settings, heart, lease
        self._trainer, self._desk, self._vault = trainer, desk, vault
        self._reporter = Reporter(database, lease)
        self._hours = staged.order.spec.resources.max_hours or settings.limits.max_hours
        self._ends_at = time.monotonic() + self._hours * 3600 - staged.spent_seconds
        self._next_poll = 0.0
        self._has_student = vault.has_student
        self._asked_finish = False
        self._stop_until: float | None = None
        """Once the trainer was asked to stop: how long it may take."""
        self._result: Finished | Failed | Stop | None = None

    def follow(self, *, draining: Callable[[], bool]) -> Outcome:
        """Return how it ended. The trainer may still live then."""
        while True:
            said = self._trainer.events(timeout=self._settings.cancel_poll_seconds)
            for event in said or ():
                self._take(event)
            self._answer()
            if self._heart.lost or not self._reporter.flush(force=said is None):
                return Stop.LEASE_LOST
            if said is None:
                return self._ended()
            if time.monotonic() > self._ends_at:
                return _too_long(self._hours)
            # What could not be written down before the lease is given up is at least in a checkpoint.
            if draining() or self._heart.endangered:
                self._ask_to_stop()
            if (stop := self._poll()) is not None:
                return stop
            if self._stop_until is not None and time.monotonic() > self._stop_until:
                return Stop.PUT_ASIDE

    def close(self) -> None:
        """Let the last checkpoint be stored, when that is what the attempt ended with."""
        left = 0.0 if self._stop_until is None else self._stop_until - time.monotonic()
        self._vault.close(seconds=max(0.0, left))

    def _take(self, event: TrainerEvent) -> None:
        match event:
            case Finished() | Failed():
                self._result = event
            case Stopped():
                self._result = Stop.PUT_ASIDE
            case OutputsWanted() | OutputsMade():
                self._desk.take(event)
            case CheckpointSaved():
                self._keep(event)
            case Resumed(file=file):
                if file is None:
                    self._reporter.resume(0)
                elif (told := self._vault.told_of(file)) is not None:
                    self._reporter.resume(told.points, told.unsent)
            case _:
                if isinstance(event, PhaseStarted | Progress):
                    self._has_student |= event.phase in STUDENT_PHASES
                self._reporter.take(event)

    def _keep(self, saved: CheckpointSaved) -> None:
        reporter = self._reporter
        reporter.flush(force=True)
        points = reporter.points
        told = Told(saved=saved, points=points, unsent=reporter.unsent)
        self._vault.take(told, ready=lambda: reporter.written >= points)

    def _answer(self) -> None:
        if isinstance(answer := self._desk.answer(), OutputsPlace):
            self._trainer.tell(answer)
        elif answer is not None:
            self._reporter.take(answer)

    def _ended(self) -> Outcome:
        if self._result is not None:
            return self._result
        ending = self._trainer.wait()
        return Died(ending.reason, ending.facts)

    def _poll(self) -> Stop | None:
        """Pass on what is asked of the job. Not None: it is to be stopped at once."""
        if time.monotonic() < self._next_poll:
            return None
        self._next_poll = time.monotonic() + self._settings.cancel_poll_seconds
        try:
            return self._pass_on()
        except Exception as error:
            if not is_outage(error):
                raise
            return None  # the lease decides how long work may go on without a database

    def _pass_on(self) -> Stop | None:
        with self._database.read() as session:
            asked = lifecycle.asked_under(session, self._lease)
        if asked is None:
            return Stop.LEASE_LOST
        if asked.status is JobStatus.CANCELLING:
            return Stop.CANCELLED
        if asked.status is JobStatus.PAUSING:
            self._ask_to_stop()
        elif asked.finish and self._stop_until is None:
            self._finish()
        return None

    def _finish(self) -> None:
        if self._has_student and not self._asked_finish:
            self._asked_finish = True
            self._trainer.tell(Asked(wish="finish"))
        elif not self._has_student:
            # There was one when it was asked for, and it was lost with its attempt.
            reason = "Nothing is left of the student that was to be finished with: the job trains to its end."
            with self._database.write() as session:
                lifecycle.drop_finish(session, self._lease, reason)

    def _ask_to_stop(self) -> None:
        if self._stop_until is None:
            self._stop_until = time.monotonic() + self._settings.stop_seconds
            self._trainer.tell(Asked(wish="stop"))


def _too_long(hours: float) -> Failed:
    hint = "Raise resources.max_hours, or make the job smaller: fewer epochs, a smaller network."
    return Failed(code="time_limit", detail=f"{FAILURE_CODES['time_limit']} ({hours:g})", hint=hint)
