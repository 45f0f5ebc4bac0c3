"""/v1/usage: what the project uses of what it may."""

from fastapi import APIRouter

from api.auth import Project
from api.parts import InParts
from api.problems import declared
from api.services import quotas
from stillhouse.spec.views import Usage

router = APIRouter(prefix="/v1", tags=["usage"])


@router.get("/usage", responses=declared())
def get_usage(project: Project, parts: InParts) -> Usage:
    """Bytes the project stores, and its limits."""
    return quotas.used(parts, project)
