"""/v1/models: what the service holds, ready to teach."""

from typing import Annotated

from fastapi import APIRouter, Query

from api.auth import Project
from api.parts import InParts
from api.problems import declared
from api.services import models
from api.services.paging import PageQuery
from api.views import model_view
from stillhouse.spec.views import Model, Page

router = APIRouter(prefix="/v1/models", tags=["models"])


@router.get("", responses=declared(410))
def list_models(project: Project, parts: InParts, query: Annotated[PageQuery, Query()]) -> Page[Model]:
    """Models, newest first."""
    return models.page(parts, project, query)


@router.get("/{model_id}", responses=declared(404))
def get_model(model_id: str, project: Project, parts: InParts) -> Model:
    """A model. Its id can be the teacher of a job."""
    return model_view(models.find(parts, project, model_id))
