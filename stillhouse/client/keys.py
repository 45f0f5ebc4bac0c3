"""API keys of the project."""

from collections.abc import Iterator
from urllib.parse import quote

from stillhouse.client.pages import each
from stillhouse.client.transport import Transport, parse
from stillhouse.spec.keys import Identity, Key, KeyRequest, NewKey, Scope


class Keys:
    """`client.keys`. All but `me` need a key with the scope admin; without it they raise Forbidden."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def me(self) -> Identity:
        """Who the caller is: project, key, scope."""
        return parse(Identity, self._transport.get("/v1/keys/me"))

    def create(self, name: str, *, scope: Scope = "write", expires_in_days: float | None = None) -> NewKey:
        """Make a key. `expires_in_days`: None lets it last until it is revoked. The key is shown this once.

        Raises pydantic's ValidationError for what no key can be; Forbidden.
        """
        wanted = KeyRequest(name=name, scope=scope, expires_in_days=expires_in_days)
        # Not repeatable: when the answer is lost, another try would make a second key.
        response = self._transport.request("POST", "/v1/keys", json=wanted.model_dump(), repeatable=False)
        return parse(NewKey, response)

    def list(self, *, limit: int | None = None) -> Iterator[Key]:
        """Keys, newest first, also those that have ended."""
        return each(self._transport, "/v1/keys", Key, limit=limit)

    def get(self, key_id: str) -> Key:
        """One key. Raises NotFound."""
        return parse(Key, self._transport.get(_path(key_id)))

    def rotate(self, key_id: str, *, overlap_hours: float = 24) -> NewKey:
        """Make a key in place of another, which stays good for `overlap_hours`. Raises NotFound, Conflict."""
        # Not repeatable: a second rotation of the same key is refused.
        response = self._transport.request(
            "POST", f"{_path(key_id)}/rotate", params={"overlap_hours": overlap_hours}, repeatable=False
        )
        return parse(NewKey, response)

    def revoke(self, key_id: str) -> None:
        """End a key at once. Raises NotFound; Conflict for the project's last key with the scope admin."""
        self._transport.request("DELETE", _path(key_id), repeatable=True)


def _path(key_id: str) -> str:
    return f"/v1/keys/{quote(key_id, safe='')}"
