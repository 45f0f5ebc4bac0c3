"""Queries on a project's secrets. The value is sealed before it comes to the database, and opened by a worker alone."""

from collections.abc import Iterable

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from core.sealing import Sealer, Unsealable
from models.base import db_now
from models.keys import hold_project
from models.secret import SecretRow


def put(session: Session, sealer: Sealer, project_id: str, name: str, value: str) -> SecretRow:
    """Store the value under the name, in place of one it had."""
    hold_project(session, project_id)
    now = db_now(session)
    row = _get(session, project_id, name)
    if row is None:
        row = SecretRow(project_id=project_id, name=name, created_at=now)
        session.add(row)
    row.sealed, row.updated_at = sealer.seal(value.encode(), owner=_owner(project_id, name)), now
    session.flush()
    return row


def of_project(session: Session, project_id: str) -> list[SecretRow]:
    """All, by name."""
    return list(session.scalars(select(SecretRow).where(SecretRow.project_id == project_id).order_by(SecretRow.name)))


def names(session: Session, project_id: str) -> list[str]:
    """Of all."""
    return list(session.scalars(select(SecretRow.name).where(SecretRow.project_id == project_id)))


def count_others(session: Session, project_id: str, name: str) -> int:
    """How many have another name."""
    query = select(func.count()).select_from(SecretRow)
    return session.scalars(query.where(SecretRow.project_id == project_id, SecretRow.name != name)).one()


def remove(session: Session, project_id: str, name: str) -> bool:
    """Forget it at once. False when there is none."""
    statement = delete(SecretRow).where(SecretRow.project_id == project_id, SecretRow.name == name)
    return session.execute(statement.returning(SecretRow.name)).first() is not None


def opened(session: Session, sealer: Sealer, project_id: str, wanted: Iterable[str]) -> dict[str, str]:
    """{name: value} of those that can be opened; one that is gone, or was sealed with another key, is left out."""
    found = {}
    for name in wanted:
        row = _get(session, project_id, name)
        try:
            if row is not None:
                found[name] = sealer.open(row.sealed, owner=_owner(project_id, name)).decode()
                row.last_used_at = db_now(session)
        except Unsealable:
            continue
    return found


def _get(session: Session, project_id: str, name: str) -> SecretRow | None:
    query = select(SecretRow).where(SecretRow.project_id == project_id, SecretRow.name == name)
    return session.scalars(query).one_or_none()


def _owner(project_id: str, name: str) -> str:
    return f"{project_id} secret {name}"
