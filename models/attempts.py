"""What is kept of lost attempts: an event each, which says how far it came, what ended it and what it said last."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from models.event import EventRow
from stillhouse.spec.states import FINAL, JobStatus

_LINES = 3
_READ_EVENTS = 100


def record(
    session: Session,
    job_id: str,
    *,
    attempt: int,
    phase: str | None,
    progress: Mapping[str, Any] | None,
    reason: str,
    exit: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """The data of the event of a lost attempt. `exit`: what is known of the end of its trainer."""
    where = {} if progress is None else {name: progress[name] for name in ("epoch", "epochs", "step", "steps")}
    said = _last_lines(session, job_id, attempt)
    return {"lost": True, "reason": reason, "phase": phase, **where, "exit": dict(exit or {}), "log": said}


def summary(session: Session, job_id: str, *, latest: Mapping[str, Any], attempt: int, count: int) -> str:
    """A sentence for each of the last `count` lost attempts, the latest of which is not on record yet."""
    query = select(EventRow.attempt, EventRow.data).where(EventRow.job_id == job_id, EventRow.type == "attempt")
    rows = session.execute(query.order_by(EventRow.seq.desc()).limit(_READ_EVENTS))
    lost = [(row.attempt, row.data) for row in rows if row.data.get("lost")]
    told = [(attempt, latest), *lost][:count]
    return " ".join(f"Attempt {number}{_where(data)}: {data['reason']}{_said(data)}" for number, data in reversed(told))


def seconds_spent(session: Session, job_id: str) -> float:
    """How long workers have held the job, in attempts that are over, since it was submitted or last tried again."""
    query = select(EventRow.data, EventRow.created_at).where(
        EventRow.job_id == job_id, EventRow.type.in_(("status", "attempt"))
    )
    spent, began = 0.0, None
    for data, at in session.execute(query.order_by(EventRow.seq)):
        status = data.get("status")
        if status == JobStatus.RUNNING:
            began = began or at
        elif status in (JobStatus.QUEUED, JobStatus.PAUSED) and began is not None:
            spent, began = spent + (at - began).total_seconds(), None
        elif status in FINAL:
            spent, began = 0.0, None
    return spent


def _last_lines(session: Session, job_id: str, attempt: int) -> list[str]:
    query = select(EventRow.message).where(
        EventRow.job_id == job_id, EventRow.attempt == attempt, EventRow.type == "log"
    )
    return list(reversed(session.scalars(query.order_by(EventRow.seq.desc()).limit(_LINES)).all()))


def _where(data: Mapping[str, Any]) -> str:
    if data["phase"] is None:
        return ", before it began"
    step = f", step {data['step']} of {data['steps']}" if "step" in data else ""
    return f", {str(data['phase']).replace('_', ' ')}{step}"


def _said(data: Mapping[str, Any]) -> str:
    return f' Its log ended: "{data["log"][-1]}"' if data["log"] else ""
