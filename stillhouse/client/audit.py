"""The audit log."""

from collections.abc import Iterator

from stillhouse.client.pages import each
from stillhouse.client.transport import Transport
from stillhouse.spec.audit import AuditEntry


class Audit:
    """`client.audit`. Needs a key with the scope admin."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(
        self,
        *,
        key: str | None = None,
        action: str | None = None,
        target: str | None = None,
        limit: int | None = None,
    ) -> Iterator[AuditEntry]:
        """Entries, newest first: those of a `key`, of an `action` such as create_job, on a `target`."""
        params = {"key": key, "action": action, "target": target}
        return each(self._transport, "/v1/audit", AuditEntry, params=params, limit=limit)
