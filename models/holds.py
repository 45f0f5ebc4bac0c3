"""Queries on holds: a backup takes one, so that no file it is about to copy is purged."""

from datetime import timedelta

from sqlalchemy import delete, exists, select, text, update
from sqlalchemy.orm import Session

from models.base import db_now
from models.storage_hold import StorageHoldRow
from stillhouse.spec.ids import new_id


def take(session: Session, reason: str, *, seconds: float) -> str:
    """A new hold, for so long; returns its id. Those that lapsed are dropped."""
    now = db_now(session)
    session.execute(delete(StorageHoldRow).where(StorageHoldRow.until < now))
    row = StorageHoldRow(id=new_id("hld"), reason=reason, until=now + timedelta(seconds=seconds))
    session.add(row)
    session.flush()
    return row.id


def renew(session: Session, hold_id: str, *, seconds: float) -> bool:
    """Extend a hold. False when it has lapsed: something may have been purged since."""
    now = db_now(session)
    statement = update(StorageHoldRow).where(StorageHoldRow.id == hold_id, StorageHoldRow.until >= now)
    result = session.execute(statement.values(until=now + timedelta(seconds=seconds)))
    return int(result.rowcount) == 1  # type: ignore[attr-defined]


def release(session: Session, hold_id: str) -> None:
    """Let go."""
    session.execute(delete(StorageHoldRow).where(StorageHoldRow.id == hold_id))


def in_force(session: Session) -> bool:
    """True while any hold lasts. None begins before the caller's transaction has ended: so who then takes one sees
    what this transaction did."""
    if session.get_bind().dialect.name == "postgresql":  # SQLite has one writer anyway
        session.execute(text("LOCK TABLE storage_hold IN SHARE MODE"))
    query = select(exists(select(StorageHoldRow.id).where(StorageHoldRow.until >= db_now(session))))
    return bool(session.execute(query).scalar_one())
