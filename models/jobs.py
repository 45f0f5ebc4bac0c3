"""Queries on jobs, and the row a submission makes."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import delete, insert, select
from sqlalchemy.orm import Session

from models import attempts
from models.base import db_now
from models.event import EventRow
from models.idempotency import IdempotencyRow
from models.job import JobRow
from models.scheduling import needs_of, turn_at
from stillhouse.spec.ids import new_id
from stillhouse.spec.job import JobSpec
from stillhouse.spec.states import JobStatus


@dataclass(frozen=True, kw_only=True)
class JobFilter:
    """Which jobs a list shows."""

    statuses: tuple[JobStatus, ...] = ()
    name: str | None = None
    labels: tuple[tuple[str, str], ...] = ()
    deleted: bool = False
    """Those in the trash, instead of all others."""


def create(
    session: Session,
    project_id: str,
    *,
    spec: JobSpec,
    resolved: JobSpec,
    dataset_id: str,
    cloned_from: str | None = None,
) -> JobRow:
    """Add a waiting job and its first event."""
    now, needs = db_now(session), needs_of(spec)
    row = JobRow(
        id=new_id("job"),
        project_id=project_id,
        name=spec.name,
        status=JobStatus.QUEUED,
        conditions=[],
        spec=spec.model_dump(mode="json", exclude_unset=True),
        resolved=resolved.model_dump(mode="json"),
        labels=dict(spec.labels),
        dataset_id=dataset_id,
        cloned_from=cloned_from,
        created_at=now,
        next_run_at=now,
        turn_at=turn_at(spec, now),
        needs_cuda=needs.cuda,
        needs_memory_bytes=needs.memory_bytes,
        event_seq=1,
        attempt=0,
        lost_attempts=0,
        version=1,
    )
    session.add(row)
    session.flush()
    first = {
        "job_id": row.id,
        "seq": 1,
        "type": "status",
        "level": "info",
        "message": "The job was accepted.",
    }
    session.execute(insert(EventRow).values(**first, data={"status": "queued"}, attempt=0, created_at=now))
    return row


def get(session: Session, project_id: str, job_id: str) -> JobRow | None:
    """A job of this project, in the trash or not."""
    query = select(JobRow).where(JobRow.id == job_id, JobRow.project_id == project_id, JobRow.purging_at.is_(None))
    return session.scalars(query).one_or_none()


def page(session: Session, project_id: str, wanted: JobFilter, *, before: str | None, limit: int) -> list[JobRow]:
    """Jobs newest first, from the one made just before `before`. One more than `limit` tells that there are more."""
    query = select(JobRow).where(
        JobRow.project_id == project_id,
        JobRow.purging_at.is_(None),
        JobRow.deleted_at.is_not(None) if wanted.deleted else JobRow.deleted_at.is_(None),
    )
    if before is not None:
        query = query.where(JobRow.id < before)
    if wanted.statuses:
        query = query.where(JobRow.status.in_(wanted.statuses))
    if wanted.name is not None:
        query = query.where(JobRow.name == wanted.name)
    for key, value in wanted.labels:
        query = query.where(JobRow.labels[key].as_string() == value)
    return list(session.scalars(query.order_by(JobRow.id.desc()).limit(limit + 1)))


def remembered(session: Session, project_id: str, key: str) -> IdempotencyRow | None:
    """What was submitted under this idempotency key."""
    return session.get(IdempotencyRow, (project_id, key))


def remember(session: Session, project_id: str, key: str, *, body_sha256: str, job_id: str) -> None:
    """Tie an idempotency key to a job, in the job's own transaction."""
    session.add(
        IdempotencyRow(
            project_id=project_id, key=key, body_sha256=body_sha256, job_id=job_id, created_at=db_now(session)
        )
    )
    session.flush()


def forget_old_keys(session: Session) -> None:
    """Drop idempotency keys older than two days: no client retries that long."""
    session.execute(delete(IdempotencyRow).where(IdempotencyRow.created_at < db_now(session) - timedelta(days=2)))


def brief(session: Session, job_id: str) -> dict[str, Any] | None:
    """What a worker needs of a job it has claimed."""
    row = session.get(JobRow, job_id)
    if row is None:
        return None
    return {
        "project_id": row.project_id,
        "resolved": row.resolved,
        "dataset_id": row.dataset_id,
        "name": row.name,
        "spent_seconds": attempts.seconds_spent(session, job_id),
    }
