"""/v1/students and /v1/losses: what a spec can name."""

from typing import Annotated

from fastapi import APIRouter, Query

from api.auth import Project
from api.parts import InParts
from api.problems import declared
from api.services import catalogue
from api.services.catalogue import StudentsQuery
from stillhouse.spec.views import Catalogue

router = APIRouter(prefix="/v1", tags=["catalogue"])


@router.get("/students", responses=declared(404))
def list_students(project: Project, parts: InParts, query: Annotated[StudentsQuery, Query()]) -> Catalogue:
    """Architectures of students (and of teachers trained in the job), with the JSON schema of their dials; for a
    dataset or a shape also what they cost: parameters, multiply-adds, bytes."""
    return catalogue.students(parts, project, query)


@router.get("/losses", responses=declared())
def list_losses(project: Project) -> Catalogue:
    """Losses, with the JSON schema of their fields."""
    return catalogue.losses()
