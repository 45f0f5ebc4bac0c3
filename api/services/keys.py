"""What an administrator may do with the project's keys: make, list, rotate, revoke."""

from datetime import timedelta
from typing import Annotated

from pydantic import Field, ValidationError
from sqlalchemy.orm import Session

from api.auth import Caller
from api.bodies import MAX_ERRORS, JsonBody
from api.parts import Parts
from api.services.missing import missing
from api.services.paging import PageQuery, page_of, start_of
from models import keys
from models.api_key import ApiKeyRow
from models.base import db_now
from models.project import ProjectRow
from stillhouse.spec.base import Contract
from stillhouse.spec.errors import Conflict, Invalid
from stillhouse.spec.ids import is_id
from stillhouse.spec.keys import Identity, Key, KeyRequest, NewKey
from stillhouse.spec.problems import field_errors
from stillhouse.spec.views import Page

_FULL = "POST /v1/keys with the scope admin makes another; then come back."


class RotateQuery(Contract, strict=False):
    """How a key is replaced."""

    overlap_hours: Annotated[float, Field(ge=0, le=720)] = 24
    """Hours the old key stays good, so that its users can change over."""


def page(parts: Parts, project_id: str, query: PageQuery) -> Page[Key]:
    """A page of keys."""
    before = start_of(parts, project_id, "keys", query)
    with parts.of(project_id).read() as session:
        rows = keys.page(session, project_id, before=before, limit=query.limit)
    return page_of(parts, project_id, "keys", query, rows, _view)


def one(parts: Parts, project_id: str, key_id: str) -> Key:
    """One key. Raises NotFound."""
    with parts.of(project_id).read() as session:
        return _view(_find(session, project_id, key_id))


def make(parts: Parts, project_id: str, body: JsonBody) -> NewKey:
    """A new key. Raises Invalid with one entry per wrong field."""
    try:
        wanted = KeyRequest.model_validate_json(body.raw)
    except ValidationError as error:
        wrong = field_errors(error, body.value, KeyRequest)[:MAX_ERRORS]
        raise Invalid("The description of the key is not valid.", errors=wrong) from None
    with parts.of(project_id).write() as session:
        made = keys.make(session, project_id, name=wanted.name, scope=wanted.scope, days=wanted.expires_in_days)
    return _shown(*made)


def rotate(parts: Parts, project_id: str, key_id: str, query: RotateQuery) -> NewKey:
    """A key in place of another. Raises NotFound; Conflict when the old one is over or was replaced already."""
    with parts.of(project_id).write() as session:
        keys.hold_project(session, project_id)
        row = _find(session, project_id, key_id)
        if _over(session, row) or row.replaced_by is not None:
            raise Conflict("The key has ended, or was replaced already.", hint="POST /v1/keys makes a new one.")
        return _shown(*keys.rotate(session, row, overlap=timedelta(hours=query.overlap_hours)))


def revoke(parts: Parts, project_id: str, key_id: str) -> None:
    """End a key for good; harmless when repeated. Raises NotFound; Conflict for the last key with the scope admin."""
    with parts.of(project_id).write() as session:
        # Two administrators who revoke each other at once would both find the other still there.
        keys.hold_project(session, project_id)
        row = _find(session, project_id, key_id)
        if row.scope == "admin" and not _over(session, row) and not keys.other_admins(session, row):
            raise Conflict("This is the project's last key with the scope admin.", hint=_FULL)
        keys.revoke(session, row.id)


def identity(parts: Parts, caller: Caller) -> Identity:
    """Who the caller is."""
    with parts.of(caller.project_id).read() as session:
        row = _find(session, caller.project_id, caller.key_id)
        project = session.get_one(ProjectRow, caller.project_id)
    return Identity(project_id=project.id, project=project.name, key=_view(row))


def _find(session: Session, project_id: str, key_id: str) -> ApiKeyRow:
    row = keys.get(session, project_id, key_id) if is_id("key", key_id) else None
    if row is None:
        raise missing("key", key_id)
    return row


def _over(session: Session, row: ApiKeyRow) -> bool:
    return row.revoked_at is not None or (row.expires_at is not None and row.expires_at <= db_now(session))


def _shown(row: ApiKeyRow, key: str) -> NewKey:
    return NewKey(**_view(row).model_dump(), key=key)


def _view(row: ApiKeyRow) -> Key:
    return Key.model_validate(
        {
            "id": row.id,
            "name": row.name,
            "scope": row.scope,
            "start": row.start,
            "created_at": row.created_at,
            "last_used_at": row.last_used_at,
            "expires_at": row.expires_at,
            "revoked_at": row.revoked_at,
            "replaced_by": row.replaced_by,
        }
    )
