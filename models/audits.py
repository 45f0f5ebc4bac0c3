"""Queries on the audit log: add, read, and let go of what is old. There is none that changes a row."""

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from models.audit import AuditRow
from models.base import db_now
from stillhouse.spec.ids import new_id


@dataclass(frozen=True, kw_only=True)
class AuditFilter:
    """Which entries a list shows."""

    key_id: str | None = None
    action: str | None = None
    target: str | None = None


def add(
    session: Session,
    project_id: str,
    *,
    action: str,
    target: str | None,
    key_id: str | None = None,
    address: str | None = None,
    status: int | None = None,
    code: str | None = None,
    request_id: str | None = None,
) -> None:
    """Write down what was done."""
    row = AuditRow(
        id=new_id("aud"),
        project_id=project_id,
        key_id=key_id,
        action=action,
        target=None if target is None else _shown(target)[:100],
        address=None if address is None else address[:100],
        status=status,
        code=code,
        request_id=request_id,
        created_at=db_now(session),
    )
    session.add(row)
    session.flush()


def page(session: Session, project_id: str, wanted: AuditFilter, *, before: str | None, limit: int) -> list[AuditRow]:
    """Entries newest first; one more than `limit` tells that there are more."""
    query = select(AuditRow).where(AuditRow.project_id == project_id)
    if before is not None:
        query = query.where(AuditRow.id < before)
    for column, value in (
        (AuditRow.key_id, wanted.key_id),
        (AuditRow.action, wanted.action),
        (AuditRow.target, wanted.target),
    ):
        if value is not None:
            query = query.where(column == value)
    return list(session.scalars(query.order_by(AuditRow.id.desc()).limit(limit + 1)))


def forget_old(session: Session, *, days: float) -> None:
    """Drop entries older than `days`, which are more than thirty."""
    session.execute(delete(AuditRow).where(AuditRow.created_at < db_now(session) - timedelta(days=days)))


def _shown(text: str) -> str:
    """What a path may hold and no database or terminal should: escaped, so that the attempt itself is on record."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
