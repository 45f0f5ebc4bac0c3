"""Who calls: a Bearer key stands for a project."""

from typing import Annotated

from fastapi import Depends
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from api.parts import InParts
from models import keys
from stillhouse.spec.errors import Unauthorized

_bearer = HTTPBearer(auto_error=False, scheme_name="key", description="An API key: `Authorization: Bearer shk_…`.")


def calling_project(
    parts: InParts, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> str:
    """Id of the project whose key the caller shows. Raises Unauthorized."""
    if credentials is None:
        raise no_key()
    with parts.database.read() as session:
        project_id = keys.owner(session, credentials.credentials)
    if project_id is None:
        raise bad_key()
    return project_id


def no_key() -> Unauthorized:
    """The answer to a call without a key."""
    return Unauthorized("The request shows no API key.", hint="Send the header `Authorization: Bearer shk_…`.")


def bad_key() -> Unauthorized:
    """The answer to a key that opens nothing; whether it ever did is not said."""
    return Unauthorized(
        "The API key is unknown or was revoked.", hint="Check that it is complete; your operator can make a new one."
    )


Project = Annotated[str, Depends(calling_project)]
