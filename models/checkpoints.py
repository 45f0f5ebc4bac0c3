"""Queries on checkpoints. What a job needs of them: the newest two, until it is over."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

from sqlalchemy import delete, or_, select
from sqlalchemy.orm import Session, aliased

from models import lifecycle
from models.base import db_now
from models.checkpoint import CheckpointRow
from models.job import JobRow
from models.lifecycle import Lease
from stillhouse.spec.events import CheckpointSaved
from stillhouse.spec.states import STUDENT_PHASES, JobStatus, Phase

KEPT = 2
"""Two, so that a damaged one costs an interval and not the job."""
_NO_ATTEMPT = 2**31 - 1
_PHASES = tuple(Phase)  # in the order in which a job passes them
# A failed job keeps its own, so that `retry` goes on from them.
_NEEDED_NO_MORE = (JobStatus.SUCCEEDED, JobStatus.CANCELLED)


@dataclass(frozen=True, kw_only=True)
class Unneeded:
    """A checkpoint that may go."""

    job_id: str
    attempt: int
    number: int
    storage_key: str


def number_of(file: str) -> int:
    """The number in a file's name: 000017.checkpoint → 17."""
    return int(PurePath(file).stem)


def place_of(saved: CheckpointSaved, points: int) -> list[int]:
    """How far a job is there, to be compared as lists are: the same in each attempt, and more at each later step.

    Steps begin anew with each network that is trained; points, told once an epoch, are counted through the whole job.
    """
    return [points, _PHASES.index(saved.phase), saved.step]


def add(session: Session, lease: Lease, saved: CheckpointSaved, *, storage_key: str, points: int) -> bool:
    """Record a file that is in the storage. False: the lease holds no more, and the file is not on record.

    A commit whose answer was lost may have been done: its file must not be taken for one nobody names.

    One farther than any before clears the count of lost attempts: they were not lost at this place. As there are only
    so many places in a job, one that dies again and again comes to its limit, even when it starts anew each time.
    """
    if session.get(CheckpointRow, (lease.job_id, lease.attempt, number_of(saved.file))) is not None:
        return True
    if not lifecycle.progressed(session, lease, place_of(saved, points)):
        return False
    session.add(
        CheckpointRow(
            job_id=lease.job_id,
            attempt=lease.attempt,
            number=number_of(saved.file),
            phase=saved.phase,
            epoch=saved.epoch,
            step=saved.step,
            steps=saved.steps,
            loss=saved.loss,
            best=saved.best,
            points=points,
            bytes=saved.bytes,
            sha256=saved.sha256,
            storage_key=storage_key,
            created_at=db_now(session),
        )
    )
    session.flush()
    return True


def newest(session: Session, job_id: str, *, limit: int = KEPT) -> list[CheckpointRow]:
    """The newest of a job first."""
    order = CheckpointRow.attempt.desc(), CheckpointRow.number.desc()
    return list(
        session.scalars(select(CheckpointRow).where(CheckpointRow.job_id == job_id).order_by(*order).limit(limit))
    )


def has_student(session: Session, job_id: str) -> bool:
    """True when a checkpoint holds a student that has begun to learn."""
    query = select(CheckpointRow.number).where(CheckpointRow.job_id == job_id, CheckpointRow.phase.in_(STUDENT_PHASES))
    return session.execute(query.limit(1)).one_or_none() is not None


def unneeded(session: Session, *, job_id: str | None = None, limit: int = 200) -> list[Unneeded]:
    """Those of jobs that succeeded or were cancelled, and those with two newer ones."""
    newer = aliased(CheckpointRow)
    ahead = or_(
        newer.attempt > CheckpointRow.attempt,
        (newer.attempt == CheckpointRow.attempt) & (newer.number > CheckpointRow.number),
    )
    older = (
        select(newer.number)
        .where(newer.job_id == CheckpointRow.job_id, ahead)
        .limit(1)
        .offset(KEPT - 1)
        .correlate(CheckpointRow)
    )
    query = (
        select(CheckpointRow)
        .join(JobRow, JobRow.id == CheckpointRow.job_id)
        .where(or_(JobRow.status.in_(_NEEDED_NO_MORE), older.exists()))
    )
    if job_id is not None:
        query = query.where(CheckpointRow.job_id == job_id)
    return [
        Unneeded(job_id=row.job_id, attempt=row.attempt, number=row.number, storage_key=row.storage_key)
        for row in session.scalars(query.limit(limit))
    ]


def forget(session: Session, gone: Unneeded) -> None:
    """Drop the record of a checkpoint whose file is removed, or damaged."""
    session.execute(
        delete(CheckpointRow).where(
            CheckpointRow.job_id == gone.job_id,
            CheckpointRow.attempt == gone.attempt,
            CheckpointRow.number == gone.number,
        )
    )


def over(session: Session, job_ids: Sequence[str]) -> dict[str, int]:
    """Of these jobs, those that need no checkpoints on any machine any more, or do not exist: id → latest attempt."""
    rows = session.execute(select(JobRow.id, JobRow.status, JobRow.attempt).where(JobRow.id.in_(job_ids)))
    found = {row.id: row for row in rows}
    needless = (*_NEEDED_NO_MORE, JobStatus.FAILED)
    return {
        job_id: found[job_id].attempt if job_id in found else _NO_ATTEMPT
        for job_id in job_ids
        if job_id not in found or found[job_id].status in needless
    }
