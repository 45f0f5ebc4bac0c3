"""/v1/datasets: upload, look, list, delete, restore."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from api.auth import Project
from api.parts import InParts
from api.problems import declared
from api.services import datasets, ingesting, trash, uploads
from api.services.ingesting import UploadQuery
from api.services.paging import TrashQuery
from api.views import dataset_view
from stillhouse.spec.views import Dataset, Page

router = APIRouter(prefix="/v1/datasets", tags=["datasets"])

_FILE_BODY = {
    "requestBody": {
        "required": True,
        "description": "The file itself: CSV, JSON lines, Parquet, .npz, or a ZIP of class folders with PNG or JPEG.",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


@router.post("", status_code=201, responses=declared(413, 415), openapi_extra=_FILE_BODY)
async def create_dataset(
    project: Project, parts: InParts, query: Annotated[UploadQuery, Query()], request: Request, response: Response
) -> Dataset:
    """Upload a dataset. It is read and checked before the answer; a `Repr-Digest` with its SHA-256 is checked too."""
    read = partial(ingesting.take, parts, project, query)
    row = await uploads.receive(request, parts, read, smaller=ingesting.SMALLER)
    response.headers["Location"] = f"/v1/datasets/{row.id}"
    return dataset_view(row)


@router.get("", responses=declared(410))
def list_datasets(project: Project, parts: InParts, query: Annotated[TrashQuery, Query()]) -> Page[Dataset]:
    """Datasets, newest first."""
    return datasets.page(parts, project, query)


@router.get("/{dataset_id}", responses=declared(404))
def get_dataset(dataset_id: str, project: Project, parts: InParts) -> Dataset:
    """A dataset: its facts, and the report of what was found in it."""
    return dataset_view(datasets.find(parts, project, dataset_id))


@router.delete("/{dataset_id}", responses=declared(404, 409))
def delete_dataset(dataset_id: str, project: Project, parts: InParts) -> Dataset:
    """Put a dataset no job needs now into the trash. Until `purge_at` it can be restored; then its file is removed for
    good, and the teacher outputs kept of it. Reports of jobs that ran on it stay. Harmless when repeated."""
    return dataset_view(trash.delete_dataset(parts, project, dataset_id))


@router.post("/{dataset_id}/restore", responses=declared(404))
def restore_dataset(dataset_id: str, project: Project, parts: InParts) -> Dataset:
    """Take a dataset out of the trash. Harmless when repeated."""
    return dataset_view(trash.restore_dataset(parts, project, dataset_id))
