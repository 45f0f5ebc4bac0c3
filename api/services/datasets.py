"""What a caller may do with stored datasets."""

import re

from api.parts import Parts
from api.services.paging import TrashQuery, page_of, start_of
from api.views import dataset_view
from models import datasets
from models.dataset import DatasetRow
from stillhouse.spec.errors import NotFound
from stillhouse.spec.views import Dataset, Page

_ID = re.compile(r"ds_[0-9a-hjkmnp-tv-z]{26}")


def page(parts: Parts, project_id: str, query: TrashQuery) -> Page[Dataset]:
    """A page of datasets."""
    before = start_of(parts, project_id, "datasets", query)
    with parts.of(project_id).read() as session:
        rows = datasets.page(session, project_id, before=before, limit=query.limit, deleted=query.deleted)
    return page_of(parts, project_id, "datasets", query, rows, dataset_view)


def find(parts: Parts, project_id: str, dataset_id: str) -> DatasetRow:
    """A dataset of this project. Raises NotFound."""
    row = None
    if _ID.fullmatch(dataset_id):
        with parts.of(project_id).read() as session:
            row = datasets.get(session, project_id, dataset_id)
    if row is None:
        raise missing()
    return row


def missing() -> NotFound:
    """The answer when there is no such dataset for this caller."""
    return NotFound("There is no such dataset.", hint="GET /v1/datasets lists yours.")
