"""What a caller may see of the models the service holds."""

from api.parts import Parts
from api.services.missing import missing
from api.services.paging import TrashQuery, page_of, start_of
from api.views import model_view
from models import results
from models.model import ModelRow
from stillhouse.spec.ids import is_id
from stillhouse.spec.views import Model, Page


def page(parts: Parts, project_id: str, query: TrashQuery) -> Page[Model]:
    """A page of models."""
    before = start_of(parts, project_id, "models", query)
    with parts.of(project_id).read() as session:
        rows = results.models_page(session, project_id, before=before, limit=query.limit, deleted=query.deleted)
    return page_of(parts, project_id, "models", query, rows, model_view)


def find(parts: Parts, project_id: str, model_id: str) -> ModelRow:
    """A model of this project. Raises NotFound."""
    row = None
    if is_id("mdl", model_id):
        with parts.of(project_id).read() as session:
            row = results.model(session, project_id, model_id)
    if row is None:
        raise missing("mdl", model_id)
    return row
