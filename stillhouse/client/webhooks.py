"""Webhooks: how messages about jobs fare, and the secret that signs them."""

from collections.abc import Iterator
from urllib.parse import quote

from stillhouse.client.jobs import JobLike
from stillhouse.client.pages import each
from stillhouse.client.transport import Transport, parse
from stillhouse.spec.views import Job
from stillhouse.spec.webhook import WebhookDelivery, WebhookSecret


class Webhooks:
    """`client.webhooks`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def deliveries(self, job: JobLike) -> Iterator[WebhookDelivery]:
        """Messages to the job's webhook; none before it is over, or when it has no webhook. Raises NotFound."""
        job_id = job.id if isinstance(job, Job) else job
        return each(self._transport, f"/v1/jobs/{quote(job_id, safe='')}/webhook-deliveries", WebhookDelivery)

    def secret(self) -> WebhookSecret:
        """The secret that signs all webhooks of the project. Raises Conflict when it can no longer be read."""
        return parse(WebhookSecret, self._transport.get("/v1/webhook-secret"))

    def rotate_secret(self) -> WebhookSecret:
        """Make a new secret. For 24 hours messages are signed with the previous one too."""
        # Not repeatable: a second rotation would drop the secret receivers still know.
        return parse(WebhookSecret, self._transport.request("POST", "/v1/webhook-secret/rotate", repeatable=False))
