"""/v1/teacher-outputs: what teachers said of training data, kept for later jobs: list, delete."""

from typing import Annotated

from fastapi import APIRouter, Query

from api.auth import Project
from api.parts import InParts
from api.problems import declared
from api.services import teacher_outputs
from api.services.paging import PageQuery
from stillhouse.spec.views import KeptOutputs, Page

router = APIRouter(prefix="/v1/teacher-outputs", tags=["teacher outputs"])


@router.get("", responses=declared(410))
def list_teacher_outputs(project: Project, parts: InParts, query: Annotated[PageQuery, Query()]) -> Page[KeptOutputs]:
    """Teacher outputs kept for later jobs, newest first: what they are of, their size, and how many jobs read them."""
    return teacher_outputs.page(parts, project, query)


@router.delete("/{output_id}", status_code=204, responses=declared(404, 409))
def delete_teacher_outputs(output_id: str, project: Project, parts: InParts) -> None:
    """Delete kept teacher outputs. A later job that needs them makes them again; a running one keeps them."""
    teacher_outputs.delete(parts, project, output_id)
