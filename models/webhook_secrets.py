"""The secrets a project's webhooks are signed with. Kept sealed; made when first asked for."""

import base64
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from core.sealing import Sealer, Unsealable
from models.base import db_now
from models.project import ProjectRow

_SECRET_BYTES = 32
KEPT_AFTER_ROTATION = timedelta(hours=24)
"""How long the secret before goes on signing, beside the new one."""


@dataclass(frozen=True, kw_only=True)
class Secrets:
    """What signs now."""

    current: bytes
    previous: bytes | None
    previous_until: datetime | None

    @property
    def all(self) -> tuple[bytes, ...]:
        """The current one first."""
        return (self.current,) if self.previous is None else (self.current, self.previous)


def secrets_of(session: Session, sealer: Sealer, project_id: str) -> Secrets:
    """The project's secrets; needs a writing session. Raises Unsealable when they were sealed with another key."""
    row = session.get_one(ProjectRow, project_id, populate_existing=True)
    if row.webhook_secret is None:
        row = _locked(session, project_id)
    if row.webhook_secret is None:
        row.webhook_secret = _new(sealer, project_id)
        session.flush()
    current = sealer.open(row.webhook_secret, owner=project_id)
    until = row.webhook_secret_previous_until
    if row.webhook_secret_previous is None or until is None or until <= db_now(session):
        return Secrets(current=current, previous=None, previous_until=None)
    previous = sealer.open(row.webhook_secret_previous, owner=project_id)
    return Secrets(current=current, previous=previous, previous_until=until)


def rotate(session: Session, sealer: Sealer, project_id: str) -> Secrets:
    """Make a new secret. The one so far signs for another day; one before that no more, nor one that cannot be read."""
    row = _locked(session, project_id)
    keep = row.webhook_secret is not None and _opens(sealer, row.webhook_secret, project_id)
    row.webhook_secret_previous = row.webhook_secret if keep else None
    row.webhook_secret_previous_until = db_now(session) + KEPT_AFTER_ROTATION if keep else None
    row.webhook_secret = _new(sealer, project_id)
    session.flush()
    return secrets_of(session, sealer, project_id)


def shown(secret: bytes) -> str:
    """A secret as people copy it."""
    return "whsec_" + base64.b64encode(secret).decode()


def _new(sealer: Sealer, project_id: str) -> str:
    return sealer.seal(secrets.token_bytes(_SECRET_BYTES), owner=project_id)


def _opens(sealer: Sealer, sealed: str, project_id: str) -> bool:
    try:
        sealer.open(sealed, owner=project_id)
    except Unsealable:
        return False
    return True


def _locked(session: Session, project_id: str) -> ProjectRow:
    # Without the key: rows that refer to the project may be added meanwhile.
    return session.get_one(ProjectRow, project_id, populate_existing=True, with_for_update={"key_share": True})
