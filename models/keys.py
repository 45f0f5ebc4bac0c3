"""Projects and API keys: making, rotating and ending them, and finding whose key a caller shows."""

import hashlib
import secrets
import zlib
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, or_, select, update
from sqlalchemy.orm import Session

from models.api_key import ApiKeyRow
from models.base import db_now
from models.project import ProjectRow
from stillhouse.spec.ids import new_id
from stillhouse.spec.keys import Scope

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_START_CHARACTERS = 8
USE_NOTED_EVERY = timedelta(minutes=1)


def project_named(session: Session, name: str) -> ProjectRow:
    """The project of this name, made if need be."""
    row = session.scalars(select(ProjectRow).where(ProjectRow.name == name)).one_or_none()
    if row is None:
        row = ProjectRow(id=new_id("prj"), name=name, created_at=db_now(session))
        session.add(row)
        session.flush()
    return row


def hold_project(session: Session, project_id: str) -> None:
    """What comes after this in the transaction happens one after the other in one project, however many ask at once."""
    session.execute(select(ProjectRow.id).where(ProjectRow.id == project_id).with_for_update(key_share=True))


def issue(session: Session, project_id: str, *, name: str, scope: Scope = "write", days: float | None = None) -> str:
    """Make a key and return it. This is the only time it can be read."""
    _, key = make(session, project_id, name=name, scope=scope, days=days)
    return key


def make(
    session: Session, project_id: str, *, name: str, scope: Scope, days: float | None = None
) -> tuple[ApiKeyRow, str]:
    """Make a key that lasts `days` (None: until it is revoked). Its row, and the key itself."""
    body = "".join(secrets.choice(_ALPHABET) for _ in range(32))
    key = f"shk_{body}{zlib.crc32(body.encode()):08x}"
    now = db_now(session)
    row = ApiKeyRow(
        id=new_id("key"),
        project_id=project_id,
        name=name,
        scope=scope,
        start=key[:_START_CHARACTERS],
        digest=digest(key),
        created_at=now,
        expires_at=None if days is None else now + timedelta(days=days),
    )
    session.add(row)
    session.flush()
    return row, key


def rotate(session: Session, row: ApiKeyRow, *, overlap: timedelta) -> tuple[ApiKeyRow, str]:
    """Make a key in place of `row`, with its name, scope and lifetime. The old one is good for `overlap` longer."""
    lifetime = None if row.expires_at is None else (row.expires_at - row.created_at) / timedelta(days=1)
    made, key = make(session, row.project_id, name=row.name, scope=_scope(row), days=lifetime)
    until = made.created_at + overlap
    row.expires_at = until if row.expires_at is None else min(row.expires_at, until)
    row.replaced_by = made.id
    session.flush()
    return made, key


def well_formed(key: str) -> bool:
    """True when prefix and checksum fit: anything else is refused without asking the database."""
    prefix, _, rest = key.partition("_")
    body, check = rest[:32], rest[32:]
    return prefix == "shk" and len(rest) == 40 and f"{zlib.crc32(body.encode()):08x}" == check


def digest(key: str) -> str:
    """What is stored of a key."""
    return hashlib.sha256(key.encode()).hexdigest()


def good(now: datetime) -> list[ColumnElement[bool]]:
    """What holds of a key that opens something at `now`."""
    return [ApiKeyRow.revoked_at.is_(None), or_(ApiKeyRow.expires_at.is_(None), ApiKeyRow.expires_at > now)]


def shown(session: Session, key: str) -> ApiKeyRow | None:
    """The row of a key that is good now."""
    if not key.isascii() or not well_formed(key):
        return None
    query = select(ApiKeyRow).where(ApiKeyRow.digest == digest(key), *good(db_now(session)))
    return session.scalars(query).one_or_none()


def listed(session: Session) -> list[tuple[ApiKeyRow, str]]:
    """All keys with the names of their projects, oldest first."""
    query = select(ApiKeyRow, ProjectRow.name).join(ProjectRow, ProjectRow.id == ApiKeyRow.project_id)
    return [(row, name) for row, name in session.execute(query.order_by(ApiKeyRow.id))]


def page(session: Session, project_id: str, *, before: str | None, limit: int) -> list[ApiKeyRow]:
    """Keys newest first; one more than `limit` tells that there are more."""
    query = select(ApiKeyRow).where(ApiKeyRow.project_id == project_id)
    if before is not None:
        query = query.where(ApiKeyRow.id < before)
    return list(session.scalars(query.order_by(ApiKeyRow.id.desc()).limit(limit + 1)))


def get(session: Session, project_id: str, key_id: str) -> ApiKeyRow | None:
    """A key of this project."""
    query = select(ApiKeyRow).where(ApiKeyRow.id == key_id, ApiKeyRow.project_id == project_id)
    return session.scalars(query).one_or_none()


def other_admins(session: Session, row: ApiKeyRow) -> bool:
    """True when the project has another key with the scope admin that is good now."""
    query = select(ApiKeyRow.id).where(
        ApiKeyRow.project_id == row.project_id,
        ApiKeyRow.id != row.id,
        ApiKeyRow.scope == "admin",
        *good(db_now(session)),
    )
    return session.execute(query.limit(1)).first() is not None


def revoke(session: Session, key_id: str) -> bool:
    """End a key for good. False when there is none of this id, or it was revoked before."""
    row = session.get(ApiKeyRow, key_id)
    if row is None or row.revoked_at is not None:
        return False
    row.revoked_at = db_now(session)
    return True


def note_use(session: Session, key_id: str) -> None:
    """Write down that a key was just shown, unless somebody did within the last minute."""
    now = db_now(session)
    unnoted = or_(ApiKeyRow.last_used_at.is_(None), ApiKeyRow.last_used_at < now - USE_NOTED_EVERY)
    session.execute(update(ApiKeyRow).where(ApiKeyRow.id == key_id, unnoted).values(last_used_at=now))


def _scope(row: ApiKeyRow) -> Scope:
    return row.scope  # type: ignore[return-value]  # the table holds no other
