"""API keys as a caller sees them: scopes, what a new one is asked for with, and what is shown of one."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from stillhouse.spec.base import Contract, Name, View

Scope = Literal["read", "write", "admin"]
SCOPES: dict[Scope, str] = {
    "read": "look at everything of the project and download it",
    "write": "also submit, upload, cancel and delete",
    "admin": "also make and revoke keys, store secrets, read the audit log and the secret that signs webhooks",
}
"""What a key may do. Each scope includes those before it."""

MAX_DAYS = 3650.0
Days = Annotated[float, Field(gt=0, le=MAX_DAYS)]


def covers(held: str, needed: Scope) -> bool:
    """True when a key with the scope `held` may do what needs `needed`."""
    order = list(SCOPES)
    return held in order and order.index(needed) <= order.index(held)


class KeyRequest(Contract):
    """What a new key is to be."""

    name: Name
    """What the key is for; need not be unique."""
    scope: Scope = "write"
    """read, write or admin; each includes those before it."""
    expires_in_days: Annotated[float, Field(gt=0, le=MAX_DAYS, strict=False)] | None = None
    """Days until the key ends by itself. null: it lasts until it is revoked."""


class Key(View):
    """An API key, without the key itself: that is shown once, when it is made."""

    id: str
    object: Literal["key"] = "key"
    name: str
    scope: Scope
    start: str
    """How the key begins, to tell keys apart."""
    created_at: datetime
    last_used_at: datetime | None
    """When it was last shown; noted once a minute at most."""
    expires_at: datetime | None
    revoked_at: datetime | None
    replaced_by: str | None
    """Id of the key that a rotation made in its place."""


class NewKey(Key):
    """A key that was just made."""

    key: str
    """The key. Keep it now: it cannot be read again."""


class Identity(View):
    """Who the caller is."""

    project_id: str
    project: str
    key: Key
