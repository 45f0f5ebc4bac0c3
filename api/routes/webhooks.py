"""Webhooks: how messages about jobs fare, and the secret that signs them."""

from fastapi import APIRouter
from starlette.responses import Response

from api.auth import Administrator, Project
from api.parts import InParts
from api.problems import declared
from api.services import webhooks
from stillhouse.spec.views import Page
from stillhouse.spec.webhook import WebhookDelivery, WebhookSecret

router = APIRouter(prefix="/v1", tags=["webhooks"])

_SECRET = {"Cache-Control": "no-store"}


@router.get("/jobs/{job_id}/webhook-deliveries", responses=declared(404))
def list_webhook_deliveries(job_id: str, project: Project, parts: InParts) -> Page[WebhookDelivery]:
    """Messages to the job's webhook and how they fare; none before the job is over."""
    return webhooks.deliveries(parts, project, job_id)


@router.get("/webhook-secret", responses=declared(409))
def get_webhook_secret(admin: Administrator, parts: InParts, response: Response) -> WebhookSecret:
    """The secret that signs all webhooks of the project, for receivers to check them with."""
    response.headers.update(_SECRET)
    return webhooks.secret(parts, admin.project_id)


@router.post("/webhook-secret/rotate", responses=declared())
def rotate_webhook_secret(admin: Administrator, parts: InParts, response: Response) -> WebhookSecret:
    """Make a new secret. For 24 hours messages are signed with the previous one too; one older still is dropped."""
    response.headers.update(_SECRET)
    return webhooks.rotate(parts, admin.project_id)
