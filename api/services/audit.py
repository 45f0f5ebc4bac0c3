"""What an administrator may read of the audit log."""

from typing import Annotated

from pydantic import Field

from api.parts import Parts
from api.services.paging import PageQuery, page_of, start_of
from models import audits
from models.audit import AuditRow
from models.audits import AuditFilter
from stillhouse.spec import forms
from stillhouse.spec.audit import AuditEntry
from stillhouse.spec.views import Page

Text = Annotated[str, Field(min_length=1, max_length=100, pattern=forms.ONE_LINE)]


class AuditQuery(PageQuery):
    """Which entries a list shows; filters are joined by and."""

    key: Text | None = None
    """Id of the key that was shown."""
    action: Text | None = None
    """Name of the operation, such as create_job."""
    target: Text | None = None
    """Id of the object."""


def page(parts: Parts, project_id: str, query: AuditQuery) -> Page[AuditEntry]:
    """A page of entries."""
    before = start_of(parts, project_id, "audit", query)
    wanted = AuditFilter(key_id=query.key, action=query.action, target=query.target)
    with parts.of(project_id).read() as session:
        rows = audits.page(session, project_id, wanted, before=before, limit=query.limit)
    return page_of(parts, project_id, "audit", query, rows, _view)


def _view(row: AuditRow) -> AuditEntry:
    return AuditEntry(
        id=row.id,
        at=row.created_at,
        key_id=row.key_id,
        action=row.action,
        target=row.target,
        address=row.address,
        status=row.status,
        code=row.code,
        request_id=row.request_id,
    )
