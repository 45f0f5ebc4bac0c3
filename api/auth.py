"""Who calls: a Bearer key stands for a project."""

from collections.abc import Mapping
from typing import Annotated

from fastapi import Depends
from fastapi.security import HTTPBearer
from starlette.requests import Request

from api.parts import InParts
from models import keys
from stillhouse.spec.errors import Unauthorized

bearer = Depends(
    HTTPBearer(auto_error=False, scheme_name="key", description="An API key: `Authorization: Bearer shk_…`.")
)
"""Only describes the scheme in the OpenAPI document; the header is read below."""


def calling_project(parts: InParts, request: Request, _described: Annotated[object, bearer]) -> str:
    """Id of the project whose key the caller shows. Raises Unauthorized."""
    key = shown_key(dict(request.scope["headers"]))
    with parts.database.read() as session:
        project_id = keys.owner(session, key)
    if project_id is None:
        raise bad_key()
    return project_id


def shown_key(headers: Mapping[bytes, bytes]) -> str:
    """The key in the Authorization header, with a right checksum. Raises Unauthorized."""
    scheme, _, key = headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() != b"bearer" or not key:
        raise Unauthorized("The request shows no API key.", hint="Send the header `Authorization: Bearer shk_…`.")
    text = key.strip().decode("latin-1")
    if not text.isascii() or not keys.well_formed(text):
        raise bad_key()
    return text


def bad_key() -> Unauthorized:
    """The answer to a key that opens nothing; whether it ever did is not said."""
    return Unauthorized(
        "The API key is unknown or was revoked.", hint="Check that it is complete; your operator can make a new one."
    )


Project = Annotated[str, Depends(calling_project)]
