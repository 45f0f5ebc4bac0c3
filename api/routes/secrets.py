"""/v1/secrets: what jobs may use by name and nobody can read again. All need the scope admin."""

from fastapi import APIRouter

from api.auth import Administrator
from api.bodies import Body
from api.parts import InParts
from api.problems import declared
from api.services import secrets
from stillhouse.spec.secret import Secret, SecretRequest
from stillhouse.spec.views import Page

router = APIRouter(prefix="/v1/secrets", tags=["secrets"])

_SECRET_BODY = {
    "requestBody": {"required": True, "content": {"application/json": {"schema": SecretRequest.model_json_schema()}}}
}


@router.put("/{name}", responses=declared(413, 415), openapi_extra=_SECRET_BODY)
def put_secret(name: str, admin: Administrator, body: Body, parts: InParts) -> Secret:
    """Store a secret under a name, or replace its value. Specs name it, as in `hub_token`; no answer ever has it."""
    return secrets.put(parts, admin.project_id, name, body)


@router.get("", responses=declared())
def list_secrets(admin: Administrator, parts: InParts) -> Page[Secret]:
    """Secrets of the project by name, without their values."""
    return secrets.listed(parts, admin.project_id)


@router.delete("/{name}", status_code=204, responses=declared(404))
def delete_secret(name: str, admin: Administrator, parts: InParts) -> None:
    """Forget a secret at once. A job that names it and has not begun yet fails with `secret_unavailable`."""
    secrets.remove(parts, admin.project_id, name)
