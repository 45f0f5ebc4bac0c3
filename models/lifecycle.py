"""The one writer of a job's status. Each transition is one guarded UPDATE plus its event, in the caller's transaction.

A worker's writes are guarded by its lease: the job's id, the worker's and the attempt (the fencing token). A function
that returns False changed nothing: somebody else owns the job now, and what the caller holds must be dropped.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, insert, select, update
from sqlalchemy.orm import Session

from models import webhooks
from models.base import db_now
from models.event import EventRow
from models.job import JobRow
from stillhouse.spec.errors import FAILURE_CODES
from stillhouse.spec.states import ACTIVE, FINAL, JobStatus
from stillhouse.spec.views import JobError


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


def add_event(session: Session, job_id: str, note: Note, *, lease: Lease | None = None) -> bool:
    """Append an event, under `lease` when one is given."""
    guards = _held(lease) if lease is not None else []
    return _write(session, job_id, note, guards, {}) is not None


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
    attempt = _write(session, job_id, note, guards, values | {"status": JobStatus.RUNNING})
    return None if attempt is None else Lease(job_id=job_id, worker_id=worker_id, attempt=attempt)


def renew(session: Session, lease: Lease, *, lease_seconds: float) -> bool:
    """Extend the lease. Not a visible change: the version stays."""
    until = db_now(session) + timedelta(seconds=lease_seconds)
    done = session.execute(update(JobRow).where(*_held(lease)).values(lease_until=until))
    return _rows(done) == 1


def status_under(session: Session, lease: Lease) -> JobStatus | None:
    """The job's status while the lease holds; None when it does not."""
    status = session.execute(select(JobRow.status).where(*_held(lease))).scalar_one_or_none()
    return None if status is None else JobStatus(status)


def report_progress(session: Session, lease: Lease, *, phase: str, progress: dict[str, Any] | None) -> bool:
    """Write where the job stands."""
    values = {"phase": phase, "progress": progress, "version": JobRow.version + 1}
    return _rows(session.execute(update(JobRow).where(*_held(lease)).values(**values))) == 1


def succeed(session: Session, lease: Lease, values: dict[str, Any]) -> bool:
    """running → succeeded, with the report and the models in `values`."""
    note = Note(type="status", message="The job succeeded.", data={"status": "succeeded"})
    guards = [*_held(lease), JobRow.status == JobStatus.RUNNING]
    return _finish(session, lease.job_id, JobStatus.SUCCEEDED, note, guards, values)


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
    guards = [*_held(lease), JobRow.status == JobStatus.RUNNING]
    return _finish(session, lease.job_id, JobStatus.FAILED, note, guards, {"error": error.model_dump()})


def cancelled(session: Session, lease: Lease) -> bool:
    """cancelling → cancelled, once the trainer is gone."""
    guards = [*_held(lease), JobRow.status == JobStatus.CANCELLING]
    return _finish(session, lease.job_id, JobStatus.CANCELLED, _cancelled_note(), guards, {})


def hand_back(session: Session, lease: Lease, reason: str) -> bool:
    """running → queued because the worker goes, through no fault of the job: the attempt does not count as lost."""
    guards = [*_held(lease), JobRow.status == JobStatus.RUNNING]
    note = Note(type="attempt", message=reason, data={"status": "queued"})
    return _requeue(session, lease.job_id, note, guards, run_at=db_now(session), lost=0)


def lose_attempt(session: Session, lease: Lease, reason: str, *, limit: int, retry_seconds: float) -> bool:
    """The trainer died. running → queued for another attempt, or failed when the limit is reached."""
    return _lose(session, lease.job_id, _held(lease), reason, limit=limit, retry_seconds=retry_seconds)


def request_cancel(session: Session, job_id: str) -> JobStatus | None:
    """Ask a job to stop. Returns its status after the call; None when there is no such job.

    A waiting job is cancelled at once, a running one is `cancelling` until its trainer is gone; a job that is
    being cancelled, or is over, stays as it is.
    """
    asked = Note(type="cancel_requested", message="Asked to stop.", data={"status": "cancelling"})
    while True:
        if _finish(session, job_id, JobStatus.CANCELLED, _cancelled_note(), [JobRow.status == JobStatus.QUEUED], {}):
            return JobStatus.CANCELLED
        running = [JobRow.status == JobStatus.RUNNING]
        if _write(session, job_id, asked, running, {"status": JobStatus.CANCELLING}) is not None:
            return JobStatus.CANCELLING
        status = session.execute(select(JobRow.status).where(JobRow.id == job_id)).scalar_one_or_none()
        if status is None:
            return None
        # Between the two looks the job may have gone back to the queue: then look again.
        if (found := JobStatus(status)).final or found is JobStatus.CANCELLING:
            return found


def expired(session: Session) -> list[tuple[str, int]]:
    """(id, attempt) of jobs whose lease has run out."""
    query = select(JobRow.id, JobRow.attempt).where(JobRow.status.in_(ACTIVE), JobRow.lease_until < db_now(session))
    return [(job_id, attempt) for job_id, attempt in session.execute(query)]


def take_back(session: Session, job_id: str, attempt: int, *, limit: int, retry_seconds: float) -> bool:
    """End an attempt whose lease ran out: another one, or failed at the limit, or cancelled if that was asked."""
    gone = [JobRow.attempt == attempt, JobRow.lease_until < db_now(session)]
    if _finish(
        session,
        job_id,
        JobStatus.CANCELLED,
        _cancelled_note(),
        [*gone, JobRow.status == JobStatus.CANCELLING],
        {},
    ):
        return True
    reason = "The worker stopped answering."
    return _lose(session, job_id, gone, reason, limit=limit, retry_seconds=retry_seconds)


def waiting(session: Session, *, limit: int) -> list[str]:
    """Ids of jobs that could be claimed now, oldest first."""
    query = (
        select(JobRow.id)
        .where(JobRow.status == JobStatus.QUEUED, JobRow.next_run_at <= db_now(session))
        .order_by(JobRow.id)
        .limit(limit)
    )
    return list(session.scalars(query))


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
) -> bool:
    guards = [*guards, JobRow.status == JobStatus.RUNNING]
    lost = session.execute(select(JobRow.lost_attempts).where(JobRow.id == job_id, *guards)).scalar_one_or_none()
    if lost is None:
        return False
    if lost + 1 >= limit:
        error = JobError(
            code="attempts_exhausted",
            detail=f"{FAILURE_CODES['attempts_exhausted']} The last one, of {limit}: {reason}",
            hint="Read the job's events for what ended each attempt; a smaller batch or network often helps.",
        )
        note = Note(type="status", level="error", message=error.detail, data={"status": "failed", "code": error.code})
        values = {"error": error.model_dump(), "lost_attempts": JobRow.lost_attempts + 1}
        return _finish(session, job_id, JobStatus.FAILED, note, guards, values)
    pause = retry_seconds * 4**lost
    note = Note(
        type="attempt",
        level="warning",
        message=f"{reason} The job waits for another attempt.",
        data={"status": "queued"},
    )
    return _requeue(session, job_id, note, guards, run_at=db_now(session) + timedelta(seconds=pause), lost=1)


def _requeue(
    session: Session,
    job_id: str,
    note: Note,
    guards: list[ColumnElement[bool]],
    *,
    run_at: datetime,
    lost: int,
) -> bool:
    values = {
        "status": JobStatus.QUEUED,
        "worker_id": None,
        "lease_until": None,
        "phase": None,
        "progress": None,
        "next_run_at": run_at,
        "rung_at": None,
        "lost_attempts": JobRow.lost_attempts + lost,
    }
    return _write(session, job_id, note, guards, values) is not None


def _finish(
    session: Session,
    job_id: str,
    status: JobStatus,
    note: Note,
    guards: list[ColumnElement[bool]],
    values: dict[str, Any],
) -> bool:
    assert status in FINAL
    now = db_now(session)
    done = {"status": status, "finished_at": now, "lease_until": None} | values
    if _write(session, job_id, note, guards, done) is None:
        return False
    webhooks.notify(session, job_id, status, at=now)
    return True


def _write(
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


def _cancelled_note() -> Note:
    return Note(type="status", message="The job was cancelled.", data={"status": "cancelled"})


def _rows(result: Any) -> int:
    return int(result.rowcount)
