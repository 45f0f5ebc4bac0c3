"""One job from claim to record: the supervisor claims it, has a trainer work on it, and writes down what comes out.

Everything it writes is guarded by the lease. Once the lease is lost it writes nothing more.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar
from uuid import uuid4

import structlog

from core.db import Database, is_outage
from core.settings import Settings
from core.storage import Storage
from models import lifecycle, queue
from models.lifecycle import Lease, Note
from models.scheduling import Machine
from stillhouse.spec.errors import JobFailure, Unavailable
from stillhouse.spec.events import Failed, Finished
from stillhouse.spec.states import JobStatus
from stillhouse.spec.views import JobError
from worker import checkpoints, memory_limit, record, staging
from worker.checkpoints import Vault
from worker.course import Course, Died, Outcome, Stop
from worker.digests import Digests
from worker.folder import AttemptFolder, attempt_folder, trim_cache
from worker.lease import Heart
from worker.lifeline import kill_group
from worker.outputs import Desk
from worker.staging import Staged
from worker.trainers import ForkServer, TrainerLost

log = structlog.get_logger()

Done = TypeVar("Done")

_PATIENCE_SECONDS = 600
"""How long a storage that is away is waited for. Then the attempt is lost; another goes on from the checkpoint."""
_PAUSE_SECONDS = 2
_INPUTS_AWAY = "What the job needs cannot be fetched now. The job keeps its place, and it is tried again."
_RESULTS_WAIT = "The results cannot be stored now. The job keeps its place, and it is tried again."


class Supervisor:
    """Works on one job at a time."""

    def __init__(
        self,
        database: Database,
        storage: Storage,
        settings: Settings,
        heart: Heart,
        *,
        worker_id: str,
        machine: Machine,
        draining: Callable[[], bool],
    ) -> None:
        self._database, self._storage, self._settings = database, storage, settings
        self._heart, self._worker_id, self._draining = heart, worker_id, draining
        self._machine = machine
        self._forks = ForkServer(settings)
        self._digests = Digests()

    def close(self) -> None:
        """End the fork server."""
        self._forks.stop()

    def work(self) -> None:
        """Take up jobs one after the other, each to its end, until none waits that this worker may have."""
        while not self._draining():
            claimed_at = time.monotonic()
            lease = self._claim()
            if lease is None:
                return
            with structlog.contextvars.bound_contextvars(job_id=lease.job_id):
                self._carry_out(lease, claimed_at)

    def _carry_out(self, lease: Lease, claimed_at: float) -> None:
        job_id = lease.job_id
        log.info("claimed", job_id=job_id, attempt=lease.attempt)
        self._heart.hold(lease, claimed_at=claimed_at)
        try:
            with attempt_folder(self._settings.work_dir, f"{job_id}-{lease.attempt}-{uuid4().hex[:8]}") as folder:
                self._attempt(lease, folder)
        except Exception as error:
            log.exception("attempt failed", job_id=job_id, attempt=lease.attempt)
            self._settle(lease, None, Died(f"The worker failed with {type(error).__name__}."))
        finally:
            self._heart.release()
            self._tidy(job_id)
            trim_cache(self._settings.work_dir / "cache", self._settings.cache_max_bytes)

    def _claim(self) -> Lease | None:
        limit, seconds = self._settings.limits.max_running_jobs, self._settings.lease_seconds
        try:
            with self._database.write() as session:
                return queue.claim_next(
                    session, self._worker_id, self._machine, running_limit=limit, lease_seconds=seconds
                )
        except Exception as error:
            if not is_outage(error):
                raise
            log.warning("could not claim", error=type(error).__name__)
            return None  # the row still waits, and the reconciler rings again

    def _attempt(self, lease: Lease, folder: AttemptFolder) -> None:
        staged: Staged | None = None
        try:
            found = self._patiently(lease, partial(self._stage, lease, folder), _INPUTS_AWAY)
            staged = None if isinstance(found, Stop) else found
            outcome = found if isinstance(found, Stop) else self._train(lease, found)
        except JobFailure as failure:
            outcome = Failed(code=failure.code, detail=failure.detail, hint=failure.hint, retry=failure.retry)
        except Unavailable as error:
            outcome = Died(str(error.detail))
        except TrainerLost as error:
            outcome = Died(str(error))
        except Exception as error:
            if not is_outage(error):
                raise
            outcome = Died("The database did not answer while the job was prepared.")
        log.info("attempt ended", job_id=lease.job_id, attempt=lease.attempt, outcome=type(outcome).__name__)
        self._settle(lease, staged, outcome)

    def _stage(self, lease: Lease, folder: AttemptFolder) -> Staged:
        return staging.stage(self._database, self._storage, self._settings, lease, folder, self._digests)

    def _train(self, lease: Lease, staged: Staged) -> Outcome:
        if not self._forks.alive:
            self._forks.stop()
            self._forks = ForkServer(self._settings)
        lost = lambda: self._heart.lost  # noqa: E731
        vault = Vault(self._database, self._storage, self._settings, lease, staged.project_id, lost=lost)
        if (stop := self._patiently(lease, vault.stage, _INPUTS_AWAY)) is not None:
            return stop
        trainer = self._forks.start(staged.order)
        self._heart.fence_with(lambda: kill_group(trainer.pid))
        desk = Desk(self._database, self._storage, self._settings, lease, staged, lost=lost)
        course = Course(self._database, self._settings, self._heart, lease, staged, trainer, desk, vault)
        try:
            with memory_limit.watched(trainer.pid, self._settings.trainer_memory_mb) as watch:
                outcome = course.follow(draining=self._draining)
            return watch.failure() if watch.exceeded and isinstance(outcome, Died) else outcome
        finally:
            trainer.end()
            desk.close()
            course.close()

    def _tidy(self, job_id: str) -> None:
        """Checkpoints nobody needs any more. What is away now is swept up later."""
        try:
            checkpoints.tidy(self._database, self._storage, job_id=job_id)
            checkpoints.forget_local(self._database, self._settings)
        except Exception as error:
            if not isinstance(error, Unavailable) and not is_outage(error):
                raise

    def _settle(self, lease: Lease, staged: Staged | None, outcome: Outcome) -> None:
        """Write down how the attempt ended."""
        if isinstance(outcome, Finished):
            assert staged is not None
            published = self._publish(lease, staged, outcome)
            if published is None:
                return
            outcome = published
        if outcome is Stop.LEASE_LOST:
            return
        limit, pause = self._settings.attempt_limit, self._settings.retry_seconds
        match outcome:
            case Died(reason=reason) | Failed(detail=reason, retry=True):
                lose = partial(lifecycle.lose_attempt, limit=limit, retry_seconds=pause, exit=_facts(outcome))
                self._write(lease, lambda s: lose(s, lease, reason))
            case Failed(code=code, detail=detail, hint=hint):
                error = JobError(code=code, detail=detail, hint=hint)
                self._write(lease, lambda s: lifecycle.fail(s, lease, error))
            case Stop.PUT_ASIDE:
                reason = "The job goes back to the queue; the next attempt goes on from its checkpoint."
                self._write(lease, lambda s: lifecycle.hand_back(s, lease, reason))
        # Whatever was to be written, a cancel that came first has won; the trainer is gone by now.
        self._write(lease, lambda s: lifecycle.cancelled(s, lease))

    def _publish(self, lease: Lease, staged: Staged, finished: Finished) -> Failed | Died | Stop | None:
        """Store the results and record them with the success. None when that is done."""
        try:
            store = partial(staging.store, self._storage, staged, lease, finished)
            stored = self._patiently(lease, store, _RESULTS_WAIT)  # hours of work are in them
        except Unavailable as error:
            return Died(str(error.detail))
        except JobFailure as failure:
            return Failed(code=failure.code, detail=failure.detail, hint=failure.hint)
        if isinstance(stored, Stop):
            return stored
        if self._write(lease, lambda s: record.success(s, lease, staged, finished, stored)):
            return None
        if self._may_drop(lease):
            self._storage.delete_prefix(staging.prefix_of(staged.project_id, lease))
        return Stop.CANCELLED

    def _patiently(self, lease: Lease, work: Callable[[], Done], waiting: str) -> Done | Stop:
        """Do what needs the storage, again and again while that or the database is away and the job is wanted. An
        outage is no fault of the job's: it must not cost it attempts, of which it has few.

        Raises what `work` does, and Unavailable when the storage stays away.
        """
        until, told = time.monotonic() + _PATIENCE_SECONDS, False
        while True:
            try:
                return work()
            except Exception as error:
                if not isinstance(error, Unavailable) and not is_outage(error):
                    raise
                if (stop := self._unwanted(lease)) is not None:
                    return stop
                if time.monotonic() > until:
                    raise
            if not told:
                note = Note(type="log", level="warning", message=waiting)
                told = self._write(lease, partial(lifecycle.add_event, job_id=lease.job_id, note=note, lease=lease))
            time.sleep(_PAUSE_SECONDS)

    def _unwanted(self, lease: Lease) -> Stop | None:
        """Why it need not be tried again; None: it is to be."""
        if self._heart.lost:
            return Stop.LEASE_LOST
        try:
            with self._database.read() as session:
                status = lifecycle.status_under(session, lease)
        except Exception as error:
            if not is_outage(error):
                raise
            return None
        if status is JobStatus.CANCELLING:
            return Stop.CANCELLED
        return Stop.PUT_ASIDE if status is JobStatus.PAUSING or self._draining() else None

    def _may_drop(self, lease: Lease) -> bool:
        """True when the result was not recorded: a newer attempt owns the job, or it was cancelled.

        A commit may have been done although its answer was lost; and where nobody can tell, files stay.
        """
        try:
            with self._database.read() as session:
                return not lifecycle.succeeded_under(session, lease)
        except Exception as error:
            if not is_outage(error):
                raise
            return False

    def _write(self, lease: Lease, change: Callable[..., bool]) -> bool:
        """Write under the lease, again and again while the database is away and the lease holds."""
        while not self._heart.lost:
            try:
                with self._database.write() as session:
                    return change(session)
            except Exception as error:
                if not is_outage(error):
                    raise
                log.warning("write postponed", job_id=lease.job_id, error=type(error).__name__)
                time.sleep(0.5)
        return False


def _facts(outcome: Died | Failed) -> dict[str, Any]:
    return outcome.facts if isinstance(outcome, Died) else {"code": outcome.code}
