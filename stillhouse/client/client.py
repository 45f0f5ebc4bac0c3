"""The client: one object per service and key, one attribute per resource."""

from collections.abc import Sequence
from types import TracebackType
from typing import Self

import httpx2

from stillhouse.client.audit import Audit
from stillhouse.client.config import find_config
from stillhouse.client.datasets import Datasets
from stillhouse.client.jobs import Jobs
from stillhouse.client.keys import Keys
from stillhouse.client.models import Models
from stillhouse.client.secrets import Secrets
from stillhouse.client.teacher_outputs import TeacherOutputs
from stillhouse.client.transport import Transport, checked, parse
from stillhouse.client.webhooks import Webhooks
from stillhouse.spec.errors import BadAnswer
from stillhouse.spec.views import Catalogue, Readiness, Usage, Version


class Client:
    """A connection to one service. Use it as a context manager, and one per thread.

    Errors are those of `stillhouse.spec.errors`, the same classes the service raises; Unreachable when no answer
    came, BadAnswer when one came that cannot be right.
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        timeout: float = 30.0,
        retries: int = 3,
        http_transport: httpx2.BaseTransport | None = None,
    ) -> None:
        """Connect lazily: nothing is sent yet.

        `url`, `key`: None takes STILLHOUSE_URL and STILLHOUSE_API_KEY, then what `stillhouse up` wrote to
        ~/.config/stillhouse/client.json. `timeout`: seconds to connect, and longest silence of the service.
        `retries`: further attempts after a lost connection or a 429, 502, 503 or 504, with growing pauses or the
        one the service asks for; only of requests that do no harm when they arrive twice.
        `http_transport`: how requests leave, such as `httpx2.HTTPTransport(verify=…)` for a certificate authority of
        your own. Raises Unreachable when no address is known.
        """
        self._transport = Transport(
            find_config(url, key), timeout=timeout, retries=retries, http_transport=http_transport
        )
        self.jobs = Jobs(self._transport)
        self.datasets = Datasets(self._transport)
        self.models = Models(self._transport)
        self.teacher_outputs = TeacherOutputs(self._transport)
        self.webhooks = Webhooks(self._transport)
        self.keys = Keys(self._transport)
        self.secrets = Secrets(self._transport)
        self.audit = Audit(self._transport)

    @property
    def url(self) -> str:
        """Address of the service."""
        return self._transport.config.url

    def students(
        self, *, dataset: str | None = None, shape: Sequence[int] | None = None, classes: int | None = None
    ) -> Catalogue:
        """Student architectures the service can train, with the JSON schema of their dials.

        With a `dataset`'s id, or with the `shape` of a row ((channels, height, width) or (inputs,)) and the number of
        `classes`, each entry lists students that fit: parameters, multiply-adds, bytes of the file. Raises NotFound,
        Invalid.
        """
        given = {"dataset": dataset, "shape": None if shape is None else ",".join(map(str, shape)), "classes": classes}
        return parse(Catalogue, self._transport.get("/v1/students", given))

    def losses(self) -> Catalogue:
        """Losses a job can weigh, with their JSON schema."""
        return parse(Catalogue, self._transport.get("/v1/losses"))

    def usage(self) -> Usage:
        """What the project uses of what it may."""
        return parse(Usage, self._transport.get("/v1/usage"))

    def version(self) -> Version:
        """What runs there."""
        return parse(Version, self._transport.get("/version"))

    def ready(self) -> Readiness:
        """Whether each part of the service answers; asked once, so that "not ready" is an answer too."""
        response = self._transport.request("GET", "/readyz", repeatable=True, accepted=(503,))
        try:
            return parse(Readiness, response)
        except BadAnswer:
            checked(response)  # a proxy's own 503 says nothing about the parts
            raise

    def close(self) -> None:
        """Close pooled connections."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
