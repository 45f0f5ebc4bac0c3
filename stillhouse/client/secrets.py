"""Secrets of the project: stored once, named in specs, never shown again."""

from collections.abc import Iterator
from urllib.parse import quote

from stillhouse.client.pages import each
from stillhouse.client.transport import Transport, parse
from stillhouse.spec.secret import Secret, SecretRequest


class Secrets:
    """`client.secrets`. They need a key with the scope admin; without it they raise Forbidden."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def set(self, name: str, value: str) -> Secret:
        """Store a secret, or replace its value. Raises pydantic's ValidationError for what no value can be; Invalid."""
        wanted = SecretRequest(value=value)
        return parse(Secret, self._transport.request("PUT", _path(name), json=wanted.model_dump(), repeatable=True))

    def list(self) -> Iterator[Secret]:
        """All by name, without their values."""
        return each(self._transport, "/v1/secrets", Secret)

    def delete(self, name: str) -> None:
        """Forget a secret at once. Raises NotFound."""
        self._transport.request("DELETE", _path(name), repeatable=True)


def _path(name: str) -> str:
    return f"/v1/secrets/{quote(name, safe='')}"
