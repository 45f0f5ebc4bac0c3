"""/v1/audit: who did what."""

from typing import Annotated

from fastapi import APIRouter, Query

from api.auth import Administrator
from api.parts import InParts
from api.problems import declared
from api.services import audit
from api.services.audit import AuditQuery
from stillhouse.spec.audit import AuditEntry
from stillhouse.spec.views import Page

router = APIRouter(prefix="/v1", tags=["audit"])


@router.get("/audit", responses=declared(410))
def list_audit(admin: Administrator, parts: InParts, query: Annotated[AuditQuery, Query()]) -> Page[AuditEntry]:
    """The audit log, newest first: requests that changed something, were refused it, or read a secret."""
    return audit.page(parts, admin.project_id, query)
