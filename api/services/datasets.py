"""What a caller may do with stored datasets."""

from api.parts import Parts
from api.services.missing import missing
from api.services.paging import TrashQuery, page_of, start_of
from api.views import dataset_view
from models import datasets
from models.dataset import DatasetRow
from stillhouse.spec.ids import is_id
from stillhouse.spec.views import Dataset, Page


def page(parts: Parts, project_id: str, query: TrashQuery) -> Page[Dataset]:
    """A page of datasets."""
    before = start_of(parts, project_id, "datasets", query)
    with parts.of(project_id).read() as session:
        rows = datasets.page(session, project_id, before=before, limit=query.limit, deleted=query.deleted)
    return page_of(parts, project_id, "datasets", query, rows, dataset_view)


def find(parts: Parts, project_id: str, dataset_id: str) -> DatasetRow:
    """A dataset of this project. Raises NotFound."""
    row = None
    if is_id("ds", dataset_id):
        with parts.of(project_id).read() as session:
            row = datasets.get(session, project_id, dataset_id)
    if row is None:
        raise missing("ds", dataset_id)
    return row
