"""Models the service holds: teachers and students of earlier jobs."""

from collections.abc import Iterator
from urllib.parse import quote

from stillhouse.client.pages import each
from stillhouse.client.transport import Transport, parse
from stillhouse.spec.views import Model


class Models:
    """`client.models`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def get(self, model_id: str) -> Model:
        """One model. Raises NotFound."""
        return parse(Model, self._transport.get(f"/v1/models/{quote(model_id, safe='')}"))

    def list(self, *, limit: int | None = None) -> Iterator[Model]:
        """Models, newest first."""
        return each(self._transport, "/v1/models", Model, limit=limit)
