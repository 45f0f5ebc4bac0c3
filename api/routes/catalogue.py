"""/v1/students and /v1/losses: what a spec can name."""

from fastapi import APIRouter

from api.auth import Project
from api.problems import declared
from api.services import catalogue
from stillhouse.spec.views import Catalogue

router = APIRouter(prefix="/v1", tags=["catalogue"])


@router.get("/students", responses=declared())
def list_students(project: Project) -> Catalogue:
    """Architectures of students (and of teachers trained in the job), with the JSON schema of their dials."""
    return catalogue.students()


@router.get("/losses", responses=declared())
def list_losses(project: Project) -> Catalogue:
    """Losses, with the JSON schema of their fields."""
    return catalogue.losses()
