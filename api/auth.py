"""Who calls, and whether they may: a Bearer key stands for a project and has a scope."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends
from fastapi.security import HTTPBearer
from starlette.requests import Request
from starlette.types import Scope as Asked

from api import asked, rates
from api.parts import InParts, Parts
from models import keys
from models.tenancy import every_project
from stillhouse.spec.errors import FieldError, Forbidden, Unauthorized
from stillhouse.spec.keys import SCOPES, Scope, covers

bearer = Depends(
    HTTPBearer(auto_error=False, scheme_name="key", description="An API key: `Authorization: Bearer shk_…`.")
)
"""Only describes the scheme in the OpenAPI document; the header is read below."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Whose key was shown."""

    project_id: str
    key_id: str
    scope: str


def identify(parts: InParts, request: Request, _described: Annotated[object, bearer]) -> Caller:
    """Whose key the caller shows, whatever it may do. Raises Unauthorized, RateLimited, Invalid for a wrong query."""
    key = admitted_key(parts, request.scope)
    with every_project(parts.database) as session:
        row = keys.shown(session, key)
    if row is None:
        raise refused_key(parts, request.scope)
    parts.strangers.passed(keys.digest(key))
    parts.key_use.note(row.id)
    caller = Caller(project_id=row.project_id, key_id=row.id, scope=row.scope)
    request.state.caller, request.state.action = caller, request.scope["endpoint"].__name__
    request.state.path_ids = [
        value for name, value in request.path_params.items() if name == "name" or name.endswith("_id")
    ]
    rates.note(request.scope["state"], parts.request_rate.spend(row.id, quota=parts.request_quotas.of(row.project_id)))
    asked.check(request)
    return caller


Identified = Annotated[Caller, Depends(identify)]


def calling_project(caller: Identified, request: Request) -> str:
    """Id of the caller's project. Reading needs a key that may read, anything else one that may write.

    Raises Unauthorized, Forbidden.
    """
    return _allowed(caller, scope_of_method(request.method), request).project_id


def administrator(caller: Identified, request: Request) -> Caller:
    """The caller, whose key has the scope admin. Raises Unauthorized, Forbidden."""
    return _allowed(caller, "admin", request)


def scope_of_method(method: str) -> Scope:
    """What a route needs that asks for nothing more."""
    return "read" if method in ("GET", "HEAD") else "write"


def admitted_key(parts: Parts, scope: Asked) -> str:
    """The key shown, unless too many wrong ones came from the caller's address. Raises Unauthorized, RateLimited."""
    headers = dict(scope["headers"])
    try:
        key = shown_key(headers)
    except Unauthorized:
        if b"authorization" in headers:
            raise refused_key(parts, scope) from None
        raise
    parts.strangers.admit(address_of(scope), keys.digest(key))
    return key


def refused_key(parts: Parts, scope: Asked) -> Unauthorized:
    """The answer to a key that opens nothing, which counts against the caller's address. Raises RateLimited."""
    parts.strangers.failed(address_of(scope))
    return bad_key()


def address_of(scope: Asked) -> str:
    """Where a request comes from: what a named proxy says, else the other end of the connection."""
    client = scope.get("client")
    return "" if client is None else str(client[0])


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
        "The API key is unknown, has expired or was revoked.",
        hint="Check that it is complete; a key with the scope admin, or your operator, can make a new one.",
    )


def _allowed(caller: Caller, needed: Scope, request: Request) -> Caller:
    request.state.needed = needed  # `api.audit` goes by it
    if covers(caller.scope, needed):
        return caller
    detail = f"This needs a key with the scope {needed}, and the key shown has the scope {caller.scope}."
    raise Forbidden(
        detail,
        hint=f"A key with the scope {needed} may {SCOPES[needed]}; one with the scope admin can make it.",
        errors=[FieldError(pointer="header:Authorization", code=f"needs_{needed}", detail=detail)],
    )


Project = Annotated[str, Depends(calling_project)]
Administrator = Annotated[Caller, Depends(administrator)]
