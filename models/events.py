"""Queries on events and metrics of jobs."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from models.event import EventRow
from models.job import JobRow
from models.lifecycle import Lease
from models.metric import MetricRow


def page(session: Session, job_id: str, *, after: int, limit: int, type: str | None = None) -> list[EventRow]:
    """Events in order, from the one after number `after`; one more than `limit` tells that there are more."""
    query = select(EventRow).where(EventRow.job_id == job_id, EventRow.seq > after)
    if type is not None:
        query = query.where(EventRow.type == type)
    return list(session.scalars(query.order_by(EventRow.seq).limit(limit + 1)))


def cut_metrics(session: Session, lease: Lease, position: int) -> bool:
    """Drop the points from `position` on: the attempt the lease stands for tells them again."""
    if not _holds(session, lease):
        return False
    session.execute(delete(MetricRow).where(MetricRow.job_id == lease.job_id, MetricRow.position >= position))
    return True


def add_metrics(session: Session, lease: Lease, points: Sequence[dict[str, Any]]) -> bool:
    """Add points `{name, step, value, position}` of the attempt the lease stands for; False when it no longer does."""
    if not points:
        return True
    if not _holds(session, lease):
        return False
    rows = {(p["name"], p["step"]): {"job_id": lease.job_id, "attempt": lease.attempt, **p} for p in points}
    # A commit whose answer was lost is written again: the points are already there.
    kind = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
    session.execute(kind.insert(MetricRow).on_conflict_do_nothing(), list(rows.values()))
    return True


def _holds(session: Session, lease: Lease) -> bool:
    held = select(JobRow.id).where(
        JobRow.id == lease.job_id, JobRow.worker_id == lease.worker_id, JobRow.attempt == lease.attempt
    )
    return session.execute(held.with_for_update()).one_or_none() is not None


def series(
    session: Session, job_id: str, *, names: Sequence[str], first: int | None, last: int | None
) -> dict[str, list[tuple[int, float]]]:
    """Series by name, each rising by step, within [first, last]. Each step has one value, that of the last attempt."""
    query = select(MetricRow.name, MetricRow.step, MetricRow.value).where(MetricRow.job_id == job_id)
    if names:
        query = query.where(MetricRow.name.in_(names))
    if first is not None:
        query = query.where(MetricRow.step >= first)
    if last is not None:
        query = query.where(MetricRow.step <= last)
    out: dict[str, dict[int, float]] = {}
    for name, step, value in session.execute(query.order_by(MetricRow.name, MetricRow.step, MetricRow.attempt)):
        out.setdefault(name, {})[step] = value
    return {name: list(points.items()) for name, points in out.items()}
