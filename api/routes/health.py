"""Whether the service lives, whether its parts answer, and what it is. The only routes that ask for no key."""

from functools import partial

from fastapi import APIRouter
from starlette.responses import JSONResponse, Response

from api.parts import InParts
from api.services import health
from stillhouse.spec.views import Readiness, Version

router = APIRouter(tags=["health"])


@router.get("/healthz")
def healthz() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


@router.get("/readyz", response_model=Readiness, responses={503: {"model": Readiness}})
async def readyz(parts: InParts) -> Response:
    """Whether database, broker and storage answer. 503 while one does not."""
    found = await parts.readiness.get(partial(health.readiness, parts))
    status = 200 if found.ready else 503
    return JSONResponse(found.model_dump(), status_code=status, headers={"Cache-Control": "no-store"})


@router.get("/version")
def version(parts: InParts) -> Version:
    """What runs here."""
    return health.version(parts)
