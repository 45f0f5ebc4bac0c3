"""Queries on workers."""

from datetime import timedelta

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from models.base import db_now
from models.scheduling import Machine
from models.worker import WorkerRow

_FORGET_AFTER = timedelta(days=1)


def register(session: Session, worker_id: str, *, host: str, pid: int, machine: Machine) -> None:
    """Add a worker that just started, and drop those long gone."""
    now = db_now(session)
    session.execute(delete(WorkerRow).where(WorkerRow.seen_at < now - _FORGET_AFTER))
    has = {"cuda": machine.cuda, "memory_bytes": machine.memory_bytes, "cores": machine.cores}
    session.add(WorkerRow(id=worker_id, host=host, pid=pid, started_at=now, seen_at=now, **has))


def beat(session: Session, worker_id: str, *, job_id: str | None) -> bool:
    """Say that the worker lives, and on what. False when its row is gone."""
    statement = update(WorkerRow).where(WorkerRow.id == worker_id).values(seen_at=db_now(session), job_id=job_id)
    return int(session.execute(statement).rowcount) == 1  # type: ignore[attr-defined]


def leave(session: Session, worker_id: str) -> None:
    """Remove a worker that stops in order."""
    session.execute(delete(WorkerRow).where(WorkerRow.id == worker_id))


def machines(session: Session, *, within_seconds: float) -> dict[str, Machine]:
    """Worker id → what it has, of the workers heard of within this time."""
    since = db_now(session) - timedelta(seconds=within_seconds)
    return {
        row.id: Machine(cuda=bool(row.cuda), memory_bytes=row.memory_bytes or 0, cores=row.cores or 1)
        for row in session.scalars(select(WorkerRow).where(WorkerRow.seen_at >= since))
    }


def fresh(session: Session, *, within_seconds: float, host: str | None = None) -> int:
    """Workers heard of within this time, on any host or on one."""
    since = db_now(session) - timedelta(seconds=within_seconds)
    query = select(func.count()).where(WorkerRow.seen_at >= since)
    if host is not None:
        query = query.where(WorkerRow.host == host)
    return session.execute(query).scalar_one()
