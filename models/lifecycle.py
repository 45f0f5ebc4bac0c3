"""The one writer of a job's status. Each transition is one guarded UPDATE plus its event, in the caller's transaction.

A worker's writes are guarded by its lease: the job's id, the worker's and the attempt (the fencing token). A function
that returns False changed nothing: somebody else owns the job now, and what the caller holds must be dropped.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, insert, select, update
from sqlalchemy.orm import Session

from models import attempts, webhooks
from models.base import db_now
from models.event import EventRow
from models.job import JobRow
from stillhouse.spec.errors import FAILURE_CODES
from stillhouse.spec.states import ACTIVE, FINAL, JobStatus
from stillhouse.spec.views import JobError

_AT_WORK = JobRow.status.in_((JobStatus.RUNNING, JobStatus.PAUSING))
_LET_GO: dict[str, Any] = {"worker_id": None, "lease_until": None, "phase": None, "progress": None}


@dataclass(frozen=True, kw_only=True)
class Lease:
    """The right to write for one attempt of one job."""

    job_id: str
    worker_id: str
    attempt: int


@dataclass(frozen=True, kw_only=True)
class Note:
    """An event to add."""

    type: str
    message: str
    level: str = "info"
    data: dict[str, Any] | None = None


CANCELLED_NOTE = Note(type="status", message="The job was cancelled.", data={"status": "cancelled"})
PAUSED_NOTE = Note(type="status", message="The job was paused.", data={"status": "paused"})


def add_event(session: Session, job_id: str, note: Note, *, lease: Lease | None = None) -> bool:
    """Append an event, under `lease` when one is given."""
    guards = _held(lease) if lease is not None else []
    return write(session, job_id, note, guards, {}) is not None


def add_events(session: Session, lease: Lease, notes: list[Note]) -> bool:
    """Append several events under a lease, in order."""
    return all(add_event(session, lease.job_id, note, lease=lease) for note in notes)


def claim(session: Session, job_id: str, worker_id: str, *, lease_seconds: float) -> Lease | None:
    """queued → running for this worker. None when the job is not waiting (any more, or yet)."""
    now = db_now(session)
    values = {
        "attempt": JobRow.attempt + 1,
        "worker_id": worker_id,
        "lease_until": now + timedelta(seconds=lease_seconds),
        "started_at": now,
        "phase": None,
        "progress": None,
    }
    note = Note(type="status", message="A worker took up the job.", data={"status": "running"})
    guards = [JobRow.status == JobStatus.QUEUED, JobRow.next_run_at <= now]
    attempt = write(session, job_id, note, guards, values | {"status": JobStatus.RUNNING})
    return None if attempt is None else Lease(job_id=job_id, worker_id=worker_id, attempt=attempt)


def renew(session: Session, lease: Lease, *, lease_seconds: float) -> bool:
    """Extend the lease. Not a visible change: the version stays."""
    until = db_now(session) + timedelta(seconds=lease_seconds)
    done = session.execute(update(JobRow).where(*_held(lease)).values(lease_until=until))
    return _rows(done) == 1


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What callers want of a job that a worker holds."""

    status: JobStatus
    """running, pausing or cancelling."""
    finish: bool
    """Stop training now, and go on with the best."""


def asked_under(session: Session, lease: Lease) -> Asked | None:
    """What is asked of the job while the lease holds; None when it does not."""
    row = session.execute(select(JobRow.status, JobRow.wish).where(*_held(lease))).one_or_none()
    return None if row is None else Asked(status=JobStatus(row.status), finish=row.wish == "finish")


def status_under(session: Session, lease: Lease) -> JobStatus | None:
    """The job's status while the lease holds; None when it does not."""
    asked = asked_under(session, lease)
    return None if asked is None else asked.status


def drop_finish(session: Session, lease: Lease, reason: str) -> bool:
    """The job cannot be finished early any more: it trains to its end."""
    note = Note(type="finish_requested", level="warning", message=reason, data={"dropped": True})
    return write(session, lease.job_id, note, [*_held(lease), JobRow.wish.is_not(None)], {"wish": None}) is not None


def progressed(session: Session, lease: Lease, place: Sequence[int]) -> bool:
    """A checkpoint is kept. At a place farther than any before it: attempts lost until now were not lost there."""
    row = session.execute(select(JobRow.farthest).where(*_held(lease))).one_or_none()
    if row is None:
        return False
    farther = row.farthest is None or list(place) > row.farthest
    values = {"lost_attempts": 0, "farthest": list(place)} if farther else {"lost_attempts": JobRow.lost_attempts}
    return _rows(session.execute(update(JobRow).where(*_held(lease)).values(**values))) == 1


def report_progress(session: Session, lease: Lease, *, phase: str, progress: dict[str, Any] | None) -> bool:
    """Write where the job stands."""
    values = {"phase": phase, "progress": progress, "version": JobRow.version + 1}
    return _rows(session.execute(update(JobRow).where(*_held(lease)).values(**values))) == 1


def succeed(session: Session, lease: Lease, values: dict[str, Any]) -> bool:
    """running → succeeded, with the report and the models in `values`. A pause that comes so late changes nothing."""
    note = Note(type="status", message="The job succeeded.", data={"status": "succeeded"})
    guards = [*_held(lease), _AT_WORK]
    return finish(session, lease.job_id, JobStatus.SUCCEEDED, note, guards, values)


def succeeded_under(session: Session, lease: Lease) -> bool:
    """True when this very attempt is the one on record as the job's success."""
    query = select(JobRow.id).where(
        JobRow.id == lease.job_id,
        JobRow.worker_id == lease.worker_id,
        JobRow.attempt == lease.attempt,
        JobRow.status == JobStatus.SUCCEEDED,
    )
    return session.execute(query).one_or_none() is not None


def fail(session: Session, lease: Lease, error: JobError) -> bool:
    """running → failed for a reason that another attempt would meet again."""
    note = Note(type="status", level="error", message=error.detail, data={"status": "failed", "code": error.code})
    guards = [*_held(lease), _AT_WORK]
    return finish(session, lease.job_id, JobStatus.FAILED, note, guards, {"error": error.model_dump()})


def cancelled(session: Session, lease: Lease) -> bool:
    """cancelling → cancelled, once the trainer is gone."""
    guards = [*_held(lease), JobRow.status == JobStatus.CANCELLING]
    return finish(session, lease.job_id, JobStatus.CANCELLED, CANCELLED_NOTE, guards, {})


def hand_back(session: Session, lease: Lease, reason: str) -> bool:
    """The attempt ends in order: running → queued, pausing → paused. It does not count as lost."""
    held = _held(lease)
    return (
        _put_aside(session, lease.job_id, held, PAUSED_NOTE)
        or _hand_back(session, lease, held, reason)
        # Between the two looks somebody may have asked for a pause.
        or _put_aside(session, lease.job_id, held, PAUSED_NOTE)
    )


def lose_attempt(
    session: Session,
    lease: Lease,
    reason: str,
    *,
    limit: int,
    retry_seconds: float,
    exit: Mapping[str, Any] | None = None,
) -> bool:
    """The trainer died. running → queued for another attempt, or failed when the limit is reached; pausing → paused."""
    return _lose(session, lease.job_id, _held(lease), reason, limit=limit, retry_seconds=retry_seconds, exit=exit)


def expired(session: Session) -> list[tuple[str, int]]:
    """(id, attempt) of jobs whose lease has run out."""
    query = select(JobRow.id, JobRow.attempt).where(JobRow.status.in_(ACTIVE), JobRow.lease_until < db_now(session))
    return [(job_id, attempt) for job_id, attempt in session.execute(query)]


def take_back(session: Session, job_id: str, attempt: int, *, limit: int, retry_seconds: float) -> bool:
    """End an attempt whose lease ran out: another one, failed at the limit, cancelled or paused if asked."""
    gone = [JobRow.attempt == attempt, JobRow.lease_until < db_now(session)]
    if finish(
        session,
        job_id,
        JobStatus.CANCELLED,
        CANCELLED_NOTE,
        [*gone, JobRow.status == JobStatus.CANCELLING],
        {},
    ):
        return True
    reason = "The worker stopped answering."
    return _lose(session, job_id, gone, reason, limit=limit, retry_seconds=retry_seconds, exit=None)


def rung(session: Session, job_ids: list[str]) -> None:
    """Note that the doorbell was rung for these."""
    if job_ids:
        session.execute(update(JobRow).where(JobRow.id.in_(job_ids)).values(rung_at=db_now(session)))


def _held(lease: Lease) -> list[ColumnElement[bool]]:
    return [
        JobRow.id == lease.job_id,
        JobRow.worker_id == lease.worker_id,
        JobRow.attempt == lease.attempt,
        JobRow.status.in_(ACTIVE),
    ]


def _lose(
    session: Session,
    job_id: str,
    guards: list[ColumnElement[bool]],
    reason: str,
    *,
    limit: int,
    retry_seconds: float,
    exit: Mapping[str, Any] | None,
) -> bool:
    query = select(JobRow.status, JobRow.lost_attempts, JobRow.attempt, JobRow.phase, JobRow.progress)
    row = session.execute(query.where(JobRow.id == job_id, *guards, _AT_WORK)).one_or_none()
    if row is None:
        return False
    where = {"attempt": row.attempt, "phase": row.phase, "progress": row.progress}
    record = attempts.record(session, job_id, **where, reason=reason, exit=exit)
    guards, lost = [*guards, JobRow.status == row.status], row.lost_attempts
    counted = {"lost_attempts": JobRow.lost_attempts + 1}
    if row.status == JobStatus.PAUSING:
        note = Note(
            type="attempt", level="warning", message=f"{reason} The job is paused.", data=record | {"status": "paused"}
        )
        return _put_aside(session, job_id, guards, note, counted)
    if lost + 1 >= limit:
        told = attempts.summary(session, job_id, latest=record, attempt=row.attempt, count=limit)
        error = JobError(
            code="attempts_exhausted",
            detail=f"{FAILURE_CODES['attempts_exhausted']} {told}",
            hint="A smaller batch or network often helps. `retry` goes on from the last checkpoint.",
        )
        data = record | {"status": "failed", "code": error.code}
        note = Note(type="status", level="error", message=error.detail, data=data)
        return finish(session, job_id, JobStatus.FAILED, note, guards, counted | {"error": error.model_dump()})
    run_at = db_now(session) + timedelta(seconds=retry_seconds * 4**lost)
    note = Note(
        type="attempt",
        level="warning",
        message=f"{reason} The job waits for another attempt.",
        data=record | {"status": "queued"},
    )
    return write(session, job_id, note, guards, as_waiting(run_at) | counted) is not None


def _hand_back(session: Session, lease: Lease, guards: list[ColumnElement[bool]], reason: str) -> bool:
    note = Note(type="attempt", message=reason, data={"status": "queued"})
    guards = [*guards, JobRow.status == JobStatus.RUNNING]
    return write(session, lease.job_id, note, guards, as_waiting(db_now(session))) is not None


def _put_aside(
    session: Session,
    job_id: str,
    guards: list[ColumnElement[bool]],
    note: Note,
    values: Mapping[str, Any] | None = None,
) -> bool:
    guards = [*guards, JobRow.status == JobStatus.PAUSING]
    return write(session, job_id, note, guards, _LET_GO | {"status": JobStatus.PAUSED, **(values or {})}) is not None


def as_waiting(run_at: datetime) -> dict[str, Any]:
    """Values of a job that nobody holds and that waits for a worker from `run_at` on."""
    return _LET_GO | {"status": JobStatus.QUEUED, "next_run_at": run_at, "rung_at": None}


def finish(
    session: Session,
    job_id: str,
    status: JobStatus,
    note: Note,
    guards: list[ColumnElement[bool]],
    values: dict[str, Any],
) -> bool:
    """The job is over: its status, its event and its webhook. False when no row matched."""
    assert status in FINAL
    now = db_now(session)
    done = {"status": status, "finished_at": now, "lease_until": None, "wish": None} | values
    if write(session, job_id, note, guards, done) is None:
        return False
    webhooks.notify(session, job_id, status, at=now)
    return True


def write(
    session: Session, job_id: str, note: Note, guards: list[ColumnElement[bool]], values: dict[str, Any]
) -> int | None:
    """One guarded UPDATE and its event. Returns the job's attempt, or None when no row matched."""
    target = values.get("status")
    if target is not None:
        sources = [status for status in JobStatus if status.can_become(target)]
        guards = [*guards, JobRow.status.in_(sources)]
    values = values | {"version": JobRow.version + 1, "event_seq": JobRow.event_seq + 1}
    statement = update(JobRow).where(JobRow.id == job_id, *guards).values(**values)
    row = session.execute(statement.returning(JobRow.event_seq, JobRow.attempt)).one_or_none()
    if row is None:
        return None
    session.execute(
        insert(EventRow).values(
            job_id=job_id,
            seq=row.event_seq,
            type=note.type,
            level=note.level,
            message=note.message,
            data=note.data or {},
            attempt=row.attempt,
            created_at=db_now(session),
        )
    )
    return int(row.attempt)


def _rows(result: Any) -> int:
    return int(result.rowcount)
