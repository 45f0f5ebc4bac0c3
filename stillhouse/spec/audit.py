"""The audit log as a caller sees it."""

from datetime import datetime
from typing import Literal

from stillhouse.spec.base import View


class AuditEntry(View):
    """One request that changed something, tried to, or read a secret; or one command of the operator."""

    id: str
    object: Literal["audit_entry"] = "audit_entry"
    at: datetime
    key_id: str | None
    """Whose key was shown. None: the operator, on the service's own machine."""
    action: str
    """Name of the operation, as in the OpenAPI document: `create_job`, `revoke_key`, …"""
    target: str | None
    """Id of what was made, or of what was asked for."""
    address: str | None
    """Where the request came from; behind a proxy the service trusts, what that says."""
    status: int | None
    """HTTP status of the answer."""
    code: str | None
    """Code of the problem the caller was answered with; null: it was done."""
    request_id: str | None
