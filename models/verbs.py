"""What callers ask of a job. Each is harmless when repeated: a job that is already there stays as it is.

A function returns the job's status after the call, whether or not it could do what was asked, and None when there is
no such job. What it may do from which state is its table of moves; everything else is left as it is.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from models import checkpoints, lifecycle
from models.base import db_now
from models.job import JobRow
from models.lifecycle import Note
from models.webhook_delivery import WebhookDeliveryRow
from stillhouse.spec.states import STUDENT_PHASES, JobStatus


@dataclass(frozen=True, kw_only=True)
class _Move:
    """One transition a verb makes."""

    to: JobStatus
    note: Note
    values: Mapping[str, Any] = field(default_factory=dict)


def request_cancel(session: Session, job_id: str) -> JobStatus | None:
    """A waiting or paused job is cancelled at once, one at work is `cancelling` until its trainer is gone."""
    at_once = _Move(to=JobStatus.CANCELLED, note=lifecycle.CANCELLED_NOTE)
    asked = Note(type="cancel_requested", message="Asked to stop.", data={"status": "cancelling"})
    soon = _Move(to=JobStatus.CANCELLING, note=asked)
    waiting, working = (JobStatus.QUEUED, JobStatus.PAUSED), (JobStatus.RUNNING, JobStatus.PAUSING)
    return _ask(session, job_id, dict.fromkeys(waiting, at_once) | dict.fromkeys(working, soon))


def request_pause(session: Session, job_id: str) -> JobStatus | None:
    """A waiting job is paused at once, one at work is `pausing` until its trainer has written a checkpoint and gone."""
    asked = Note(type="status", message="Asked to pause.", data={"status": "pausing"})
    moves = {
        JobStatus.QUEUED: _Move(to=JobStatus.PAUSED, note=lifecycle.PAUSED_NOTE),
        JobStatus.RUNNING: _Move(to=JobStatus.PAUSING, note=asked),
    }
    return _ask(session, job_id, moves)


def request_resume(session: Session, job_id: str) -> JobStatus | None:
    """A paused job waits for a worker again. One that is being paused runs on: here, or as another attempt."""
    moves = {
        JobStatus.PAUSED: _waiting(session, "The job was resumed."),
        JobStatus.PAUSING: _Move(to=JobStatus.RUNNING, note=_status("The job was resumed.", "running")),
    }
    return _ask(session, job_id, moves)


def request_finish(session: Session, job_id: str) -> JobStatus | None:
    """Stop training, keep the best, go on to evaluation and export. Ask `can_finish` first."""
    asked = Note(type="finish_requested", message="Asked to stop training and finish with the best so far.", data={})
    wish = {"wish": "finish"}
    moves = {
        JobStatus.RUNNING: _Move(to=JobStatus.RUNNING, note=asked, values=wish),
        JobStatus.PAUSING: _Move(to=JobStatus.RUNNING, note=asked, values=wish),
        JobStatus.QUEUED: _Move(to=JobStatus.QUEUED, note=asked, values=wish),
        JobStatus.PAUSED: _waiting(session, asked.message, wish),
    }
    return _ask(session, job_id, moves)


def request_retry(session: Session, job_id: str) -> JobStatus | None:
    """A job that failed or was cancelled waits for a worker again: the same job, from its checkpoint if it has one."""
    afresh = {"finished_at": None, "error": None, "lost_attempts": 0, "farthest": None}
    move = _waiting(session, "The job is tried again.", afresh)
    status = _ask(session, job_id, {JobStatus.FAILED: move, JobStatus.CANCELLED: move})
    if status is JobStatus.QUEUED:
        # Its webhook tells how the job ended, and that is open again.
        session.execute(delete(WebhookDeliveryRow).where(WebhookDeliveryRow.job_id == job_id))
    return status


def can_finish(session: Session, row: JobRow) -> bool:
    """True when there is a student to finish with: at work on it, or in a checkpoint."""
    return row.wish == "finish" or row.phase in STUDENT_PHASES or checkpoints.has_student(session, row.id)


def _ask(session: Session, job_id: str, moves: Mapping[JobStatus, _Move]) -> JobStatus | None:
    while True:
        for source, move in moves.items():
            if _move(session, job_id, source, move):
                return move.to
        query = select(JobRow.status, JobRow.wish, JobRow.deleted_at).where(JobRow.id == job_id)
        row = session.execute(query).one_or_none()
        if row is None:
            return None
        # Between the two looks the job may have moved: then look again.
        found = JobStatus(row.status)
        if found not in moves or row.deleted_at is not None or (moves[found].to is found and row.wish is not None):
            return found


def _move(session: Session, job_id: str, source: JobStatus, move: _Move) -> bool:
    guards = [JobRow.status == source, JobRow.deleted_at.is_(None)]
    if move.to.final:
        return lifecycle.finish(session, job_id, move.to, move.note, guards, dict(move.values))
    values = dict(move.values)
    if move.to is source:
        guards.append(JobRow.wish.is_(None))  # asked for already
    else:
        values["status"] = move.to
    return lifecycle.write(session, job_id, move.note, guards, values) is not None


def _waiting(session: Session, message: str, values: Mapping[str, Any] | None = None) -> _Move:
    ready = lifecycle.as_waiting(db_now(session)) | dict(values or {})
    return _Move(to=JobStatus.QUEUED, note=_status(message, "queued"), values=ready)


def _status(message: str, status: str) -> Note:
    return Note(type="status", message=message, data={"status": status})
