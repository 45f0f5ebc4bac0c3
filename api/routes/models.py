"""/v1/models: what the service holds, ready to teach: upload, look, list, delete, restore."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from api.auth import Project
from api.parts import InParts
from api.problems import declared
from api.services import models, teachers, trash, uploads
from api.services.paging import TrashQuery
from api.services.teachers import ModelQuery
from api.views import model_view
from stillhouse.spec.views import Model, Page

router = APIRouter(prefix="/v1/models", tags=["models"])


_FILE_BODY = {
    "requestBody": {
        "required": True,
        "description": "The file itself: a ZIP of config.json and model.safetensors, as transformers, timm or a "
        "finished job of this service leave them; a checkpoint of timm or torchvision (.safetensors or .pth); an ONNX "
        "graph in one file, or a ZIP of one graph and its data files; a .pt2 of torch.export.",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


@router.post("", status_code=201, responses=declared(413, 415), openapi_extra=_FILE_BODY)
async def create_model(
    project: Project, parts: InParts, query: Annotated[ModelQuery, Query()], request: Request, response: Response
) -> Model:
    """Upload a teacher. It is read, checked and tried on random rows before the answer; a `Repr-Digest` with its
    SHA-256 is checked too."""
    read = partial(teachers.take, parts, project, query)
    row = await uploads.receive(request, parts, read, smaller=teachers.SMALLER)
    response.headers["Location"] = f"/v1/models/{row.id}"
    return model_view(row)


@router.get("", responses=declared(410))
def list_models(project: Project, parts: InParts, query: Annotated[TrashQuery, Query()]) -> Page[Model]:
    """Models, newest first."""
    return models.page(parts, project, query)


@router.get("/{model_id}", responses=declared(404))
def get_model(model_id: str, project: Project, parts: InParts) -> Model:
    """A model. Its id can be the teacher of a job."""
    return model_view(models.find(parts, project, model_id))


@router.delete("/{model_id}", responses=declared(404, 409))
def delete_model(model_id: str, project: Project, parts: InParts) -> Model:
    """Put a model that teaches no job now into the trash. Until `purge_at` it can be restored; then it is removed for
    good. Its file stays as long as it is also an artifact of its job, and reports that name it stay. Harmless when
    repeated."""
    return model_view(trash.delete_model(parts, project, model_id))


@router.post("/{model_id}/restore", responses=declared(404))
def restore_model(model_id: str, project: Project, parts: InParts) -> Model:
    """Take a model out of the trash. Harmless when repeated."""
    return model_view(trash.restore_model(parts, project, model_id))
