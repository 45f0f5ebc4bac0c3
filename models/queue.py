"""The queue in the record: claiming the job whose turn it is, looking at who waits, and the limit of those who may.

`models.scheduling` says whose turn it is; here it is asked, and answered under a lock.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, func, select, text, update
from sqlalchemy.orm import Session

from models import keys, lifecycle, project_limits, workers
from models.base import db_now
from models.job import JobRow
from models.lifecycle import Lease
from models.project import ProjectRow
from models.scheduling import Machine, Needs, Share, Waiting, choose, places
from stillhouse.spec.errors import QueueFull
from stillhouse.spec.limits import Limits
from stillhouse.spec.states import ACTIVE, JobStatus
from stillhouse.spec.views import QueuePlace

_CLAIMING = 0x5717_0001
"""PostgreSQL's advisory lock of those who claim. Any number, but of nothing else."""
_LOOKS_BACK = timedelta(hours=1)
_NO_PACE_SECONDS = 600
"""How soon to look again at a queue that has not moved for an hour: nothing says when it will."""
_TURN = func.coalesce(JobRow.turn_at, JobRow.created_at)
_COLUMNS = (
    JobRow.id,
    JobRow.project_id,
    JobRow.created_at,
    JobRow.turn_at,
    JobRow.next_run_at,
    JobRow.needs_cuda,
    JobRow.needs_memory_bytes,
)


@dataclass(frozen=True, kw_only=True)
class Line:
    """Everybody who waits, as one look found them."""

    places: dict[str, QueuePlace]
    """By job id, the first first."""
    workers: int
    """Alive."""

    @property
    def in_reach(self) -> list[str]:
        """Ids of those who wait for nothing but a worker, in their order."""
        return [id for id, place in self.places.items() if place.reason in ("starting", "workers_busy", "no_worker")]


def claim_next(
    session: Session, worker_id: str, machine: Machine, *, running_limit: int, lease_seconds: float
) -> Lease | None:
    """Give this worker the job whose turn it is. None when none waits that it may take up.

    Claims are made one after the other, so that the limit holds and turns are kept however many workers ask at once.
    """
    _one_at_a_time(session)
    while True:
        now, heads = db_now(session), _heads(session, machine)
        shares = _shares(session, {head.project_id for head in heads})
        chosen = choose(heads, shares, machine, now=now, limit=running_limit)
        if chosen is None:
            return None
        lease = lifecycle.claim(session, chosen.job_id, worker_id, lease_seconds=lease_seconds)
        if lease is not None:
            served = update(ProjectRow).where(ProjectRow.id == chosen.project_id).values(served_at=now)
            session.execute(served)
            return lease
        # It was cancelled or paused between the two looks: the next look does not find it any more.


def look(session: Session, *, running_limit: int, fresh_seconds: float) -> Line:
    """Positions and reasons of all who wait. A worker is alive that was heard of within `fresh_seconds`."""
    query = select(*_COLUMNS).where(JobRow.status == JobStatus.QUEUED)
    waiting = [_waiting(row) for row in session.execute(query)]
    if not waiting:
        return Line(places={}, workers=workers.fresh(session, within_seconds=fresh_seconds))
    alive = workers.machines(session, within_seconds=fresh_seconds)
    held = select(JobRow.worker_id).where(JobRow.status.in_(ACTIVE))
    busy = set(session.scalars(held))
    found = places(
        waiting,
        _shares(session, {job.project_id for job in waiting}),
        free=[machine for id, machine in alive.items() if id not in busy],
        busy=[machine for id, machine in alive.items() if id in busy],
        now=db_now(session),
        limit=running_limit,
    )
    return Line(places=found, workers=len(alive))


def make_room(session: Session, project_id: str, *, limits: Limits) -> None:
    """One more job of the project may wait after this, in this transaction. Raises QueueFull.

    Submissions of one project pass here one after the other, so that the limit holds however many come at once.
    """
    keys.hold_project(session, project_id)
    count = select(func.count()).where(JobRow.project_id == project_id, JobRow.status == JobStatus.QUEUED)
    waiting = session.execute(count.select_from(JobRow)).scalar_one()
    if waiting >= project_limits.in_force(session, project_id, limits).max_queued_jobs:
        raise _full(session, project_id, waiting)


def _full(session: Session, project_id: str, waiting: int) -> QueueFull:
    """Places become free as workers take jobs up, so the pace of that says when one may be."""
    since = db_now(session) - _LOOKS_BACK
    count = select(func.count()).where(JobRow.project_id == project_id, JobRow.started_at > since)
    taken = session.execute(count.select_from(JobRow)).scalar_one()
    seconds = math.ceil(_LOOKS_BACK.total_seconds() / taken) if taken else _NO_PACE_SECONDS
    pace = f"took up {taken:,} of its jobs in the last hour" if taken else "took up none of its jobs in the last hour"
    error = QueueFull(
        f"{waiting:,} jobs of the project wait for a worker, as many as may.",
        hint=f"Workers {pace}: submit again in {seconds:,} s, or cancel some that wait. "
        "The operator's setting is STILLHOUSE_LIMITS__MAX_QUEUED_JOBS, or `stillhouse limits` for one project.",
    )
    error.retry_after_seconds = seconds
    return error


def _one_at_a_time(session: Session) -> None:
    # A writer on SQLite is alone from its first statement.
    if session.get_bind().dialect.name != "sqlite":
        session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _CLAIMING})


def _heads(session: Session, machine: Machine) -> list[Waiting]:
    """Of each project the first job this machine could run now."""
    fits: list[ColumnElement[bool]] = [JobRow.needs_memory_bytes <= machine.memory_bytes]
    if not machine.cuda:
        fits.append(JobRow.needs_cuda.is_(False))
    place = func.row_number().over(partition_by=JobRow.project_id, order_by=(_TURN, JobRow.id)).label("place")
    ranked = (
        select(*_COLUMNS, place)
        .where(JobRow.status == JobStatus.QUEUED, JobRow.next_run_at <= db_now(session), *fits)
        .subquery()
    )
    return [_waiting(row) for row in session.execute(select(ranked).where(ranked.c.place == 1))]


def _shares(session: Session, project_ids: Iterable[str]) -> dict[str, Share]:
    count = select(JobRow.project_id, func.count()).where(JobRow.status.in_(ACTIVE)).group_by(JobRow.project_id)
    running: dict[str, int] = {id: number for id, number in session.execute(count)}  # noqa: C416 (rows are no pairs to mypy)
    known = select(ProjectRow.id, ProjectRow.served_at, ProjectRow.limits).where(ProjectRow.id.in_(project_ids))
    return {
        id: Share(running=running.get(id, 0), served_at=at, limit=(limits or {}).get("max_running_jobs"))
        for id, at, limits in session.execute(known)
    }


def _waiting(row: Any) -> Waiting:
    return Waiting(
        job_id=row.id,
        project_id=row.project_id,
        turn_at=row.turn_at or row.created_at,
        not_before=row.next_run_at,
        needs=Needs(cuda=row.needs_cuda, memory_bytes=row.needs_memory_bytes),
    )
