"""/v1/keys: the project's API keys. All but `me` need the scope admin."""

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from api.auth import Administrator, Identified, Project
from api.bodies import Body
from api.parts import InParts
from api.problems import declared
from api.services import keys
from api.services.keys import RotateQuery
from api.services.paging import PageQuery
from stillhouse.spec.keys import Identity, Key, KeyRequest, NewKey
from stillhouse.spec.views import Page

router = APIRouter(prefix="/v1/keys", tags=["keys"])

_ONCE = {"Cache-Control": "no-store"}
_KEY_BODY = {
    "requestBody": {"required": True, "content": {"application/json": {"schema": KeyRequest.model_json_schema()}}}
}


@router.get("/me", responses=declared())
def get_identity(caller: Identified, _may_read: Project, parts: InParts) -> Identity:
    """Who the caller is: project, key and its scope."""
    return keys.identity(parts, caller)


@router.post("", status_code=201, responses=declared(413, 415), openapi_extra=_KEY_BODY)
def create_key(admin: Administrator, body: Body, parts: InParts, response: Response) -> NewKey:
    """Make a key. The answer is the only place where it can be read."""
    return _new(keys.make(parts, admin.project_id, body), response)


@router.get("", responses=declared(410))
def list_keys(admin: Administrator, parts: InParts, query: Annotated[PageQuery, Query()]) -> Page[Key]:
    """Keys of the project, newest first, also those that have ended."""
    return keys.page(parts, admin.project_id, query)


@router.get("/{key_id}", responses=declared(404))
def get_key(key_id: str, admin: Administrator, parts: InParts) -> Key:
    """A key: what it may do, when it was last used, when it ends."""
    return keys.one(parts, admin.project_id, key_id)


@router.post("/{key_id}/rotate", status_code=201, responses=declared(404, 409))
def rotate_key(
    key_id: str, admin: Administrator, parts: InParts, query: Annotated[RotateQuery, Query()], response: Response
) -> NewKey:
    """Make a key in place of this one, with its name, scope and lifetime. The old one stays good for a while."""
    return _new(keys.rotate(parts, admin.project_id, key_id, query), response)


@router.delete("/{key_id}", status_code=204, responses=declared(404, 409))
def revoke_key(key_id: str, admin: Administrator, parts: InParts) -> None:
    """End a key at once and for good. Not the last one with the scope admin."""
    keys.revoke(parts, admin.project_id, key_id)


def _new(made: NewKey, response: Response) -> NewKey:
    response.headers.update(_ONCE | {"Location": f"/v1/keys/{made.id}"})
    return made
