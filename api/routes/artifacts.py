"""Files of finished jobs: the list, each file (in ranges), and all of them as one ZIP."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from api import bundle, files
from api.auth import Project
from api.parts import InParts
from api.problems import declared
from api.services import artifacts
from api.views import artifact_view
from stillhouse.spec.views import Artifact, Page

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["artifacts"])

_BINARY = {"schema": {"type": "string", "format": "binary"}}


@router.get("/artifacts", responses=declared(404))
def list_artifacts(job_id: str, project: Project, parts: InParts) -> Page[Artifact]:
    """Files of a job, by name; none before it has succeeded."""
    rows = artifacts.listed(parts, project, job_id)
    return Page(data=[artifact_view(row) for row in rows], has_more=False)


@router.get(
    "/artifacts/{name}",
    response_class=Response,
    responses={
        200: {"description": "The file.", "content": {"application/octet-stream": _BINARY}},
        206: {"description": "The range asked for.", "content": {"application/octet-stream": _BINARY}},
        304: {"description": "The caller has it already (If-None-Match)."},
        **declared(404, 409, 410, 416),
    },
)
def get_artifact(job_id: str, name: str, project: Project, parts: InParts, request: Request) -> Response:
    """A file. Takes Range and If-Range, so that a broken download goes on where it broke."""
    return files.answer(request, artifacts.one(parts, project, job_id, name), parts.storage)


@router.get(
    "/bundle.zip",
    response_class=Response,
    responses={
        200: {"description": "All files of the job.", "content": {"application/zip": _BINARY}},
        304: {"description": "The caller has it already (If-None-Match)."},
        **declared(404, 409, 410),
    },
)
def get_bundle(job_id: str, project: Project, parts: InParts, request: Request) -> Response:
    """All files of a job in one ZIP."""
    return bundle.answer(request, job_id, artifacts.all_of(parts, project, job_id), parts.storage)
