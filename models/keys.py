"""Projects and API keys: making them, and finding whose key a caller shows."""

import hashlib
import secrets
import zlib

from sqlalchemy import select
from sqlalchemy.orm import Session

from models.api_key import ApiKeyRow
from models.base import db_now
from models.project import ProjectRow
from stillhouse.spec.ids import new_id

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def project_named(session: Session, name: str) -> ProjectRow:
    """The project of this name, made if need be."""
    row = session.scalars(select(ProjectRow).where(ProjectRow.name == name)).one_or_none()
    if row is None:
        row = ProjectRow(id=new_id("prj"), name=name, created_at=db_now(session))
        session.add(row)
        session.flush()
    return row


def issue(session: Session, project_id: str, *, name: str) -> str:
    """Make a key and return it. This is the only time it can be read."""
    body = "".join(secrets.choice(_ALPHABET) for _ in range(32))
    key = f"shk_{body}{zlib.crc32(body.encode()):08x}"
    session.add(
        ApiKeyRow(id=new_id("key"), project_id=project_id, name=name, digest=digest(key), created_at=db_now(session))
    )
    session.flush()
    return key


def well_formed(key: str) -> bool:
    """True when prefix and checksum fit: anything else is refused without asking the database."""
    prefix, _, rest = key.partition("_")
    body, check = rest[:32], rest[32:]
    return prefix == "shk" and len(rest) == 40 and f"{zlib.crc32(body.encode()):08x}" == check


def digest(key: str) -> str:
    """What is stored of a key."""
    return hashlib.sha256(key.encode()).hexdigest()


def owner(session: Session, key: str) -> str | None:
    """The project of a valid key."""
    if not key.isascii() or not well_formed(key):
        return None
    query = select(ApiKeyRow.project_id).where(ApiKeyRow.digest == digest(key), ApiKeyRow.revoked_at.is_(None))
    return session.execute(query).scalar_one_or_none()


def has_any(session: Session) -> bool:
    """True when at least one key exists."""
    return session.execute(select(ApiKeyRow.id).limit(1)).first() is not None


def listed(session: Session) -> list[tuple[ApiKeyRow, str]]:
    """All keys with the names of their projects, oldest first."""
    query = select(ApiKeyRow, ProjectRow.name).join(ProjectRow, ProjectRow.id == ApiKeyRow.project_id)
    return [(row, name) for row, name in session.execute(query.order_by(ApiKeyRow.id))]


def revoke(session: Session, key_id: str) -> bool:
    """End a key for good. False when there is none of this id, or it was revoked before."""
    row = session.get(ApiKeyRow, key_id)
    if row is None or row.revoked_at is not None:
        return False
    row.revoked_at = db_now(session)
    return True
