"""What a caller may see of the models the service holds."""

import re

from api.parts import Parts
from api.services.paging import TrashQuery, page_of, start_of
from api.views import model_view
from models import results
from models.model import ModelRow
from stillhouse.spec.errors import NotFound
from stillhouse.spec.views import Model, Page

_ID = re.compile(r"mdl_[0-9a-hjkmnp-tv-z]{26}")


def page(parts: Parts, project_id: str, query: TrashQuery) -> Page[Model]:
    """A page of models."""
    before = start_of(parts, project_id, "models", query)
    with parts.of(project_id).read() as session:
        rows = results.models_page(session, project_id, before=before, limit=query.limit, deleted=query.deleted)
    return page_of(parts, project_id, "models", query, rows, model_view)


def find(parts: Parts, project_id: str, model_id: str) -> ModelRow:
    """A model of this project. Raises NotFound."""
    row = None
    if _ID.fullmatch(model_id):
        with parts.of(project_id).read() as session:
            row = results.model(session, project_id, model_id)
    if row is None:
        raise missing()
    return row


def missing() -> NotFound:
    """The answer when there is no such model for this caller."""
    return NotFound("There is no such model.", hint="GET /v1/models lists yours.")
