"""What a caller may do with webhooks: see deliveries, read and rotate the secret that signs them."""

from collections.abc import Callable

from sqlalchemy.orm import Session

from api.parts import Parts
from api.services import jobs
from core.sealing import Sealer, Unsealable
from models import webhook_secrets, webhooks
from models.job import JobRow
from models.webhook_delivery import WebhookDeliveryRow
from models.webhook_secrets import Secrets
from stillhouse.spec.errors import Conflict
from stillhouse.spec.views import Page
from stillhouse.spec.web_url import parse_url
from stillhouse.spec.webhook import WebhookDelivery, WebhookSecret


def deliveries(parts: Parts, project_id: str, job_id: str) -> Page[WebhookDelivery]:
    """Messages about a job and how they fare. Raises NotFound."""
    with parts.of(project_id).read() as session:
        job = jobs.find(session, project_id, job_id)
        rows = webhooks.of_job(session, job_id)
    return Page(data=[_view(row, job) for row in rows], has_more=False)


def secret(parts: Parts, project_id: str) -> WebhookSecret:
    """What the project's messages are signed with, made now if need be. Raises Conflict when it cannot be read."""
    return _secret(parts, project_id, webhook_secrets.secrets_of)


def rotate(parts: Parts, project_id: str) -> WebhookSecret:
    """A new secret."""
    return _secret(parts, project_id, webhook_secrets.rotate)


def _secret(parts: Parts, project_id: str, work: Callable[[Session, Sealer, str], Secrets]) -> WebhookSecret:
    sealer = Sealer.of(parts.settings)
    try:
        with parts.of(project_id).write() as session:
            found = work(session, sealer, project_id)
    except Unsealable:
        raise Conflict(
            "The webhook secret cannot be read: it was stored under another STILLHOUSE_SECRET_KEY.",
            hint="POST /v1/webhook-secret/rotate makes a new one; give it to your receivers.",
        ) from None
    return WebhookSecret(secret=webhook_secrets.shown(found.current), previous_signs_until=found.previous_until)


def _view(row: WebhookDeliveryRow, job: JobRow) -> WebhookDelivery:
    return WebhookDelivery.model_validate(
        {
            "id": row.id,
            "job_id": row.job_id,
            "type": f"job.{job.status}",
            "endpoint": parse_url(job.resolved["webhook"]["url"]).origin,
            "status": row.status,
            "attempts": row.attempts,
            "next_at": row.next_at,
            "last_status": row.last_status,
            "last_error": row.last_error,
            "created_at": row.created_at,
            "finished_at": row.finished_at,
        }
    )
