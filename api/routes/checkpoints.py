"""/v1/jobs/{id}/checkpoints: what a job could go on from, and its best student so far."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from api import conditional, files
from api.auth import Project
from api.middleware import wants_no_body
from api.parts import InParts
from api.problems import declared
from api.services import checkpoints
from api.views import checkpoint_view
from models.artifact import ArtifactRow
from stillhouse.spec.views import Checkpoint, Page

router = APIRouter(prefix="/v1/jobs/{job_id}/checkpoints", tags=["checkpoints"])

_BINARY = {"schema": {"type": "string", "format": "binary"}}
_TYPE = "application/octet-stream"


@router.get("", responses=declared(404))
def list_checkpoints(job_id: str, project: Project, parts: InParts) -> Page[Checkpoint]:
    """The newest two checkpoints of a job, newest first; soon none of a job that succeeded or was cancelled."""
    rows = checkpoints.listed(parts, project, job_id)
    return Page(data=[checkpoint_view(row) for row in rows], has_more=False)


@router.get(
    "/best",
    response_class=Response,
    responses={
        200: {"description": "Weights, as safetensors.", "content": {_TYPE: _BINARY}},
        304: {"description": "The caller has it already (If-None-Match)."},
        **declared(404),
    },
)
def get_best_student(job_id: str, project: Project, parts: InParts, request: Request) -> Response:
    """The best student so far as safetensors, with the names of model.safetensors; of a finished job, that file.

    404 before the student has a checkpoint. `resolved.student` of the job says how to build its network.
    """
    found = checkpoints.best(parts, project, job_id)
    if isinstance(found, ArtifactRow):
        return files.answer(request, found, parts.storage)
    etag = conditional.quoted(found.etag)
    headers = {"ETag": etag, "Cache-Control": files.CACHE_CONTROL}
    if conditional.none_match(dict(request.scope["headers"]).get(b"if-none-match"), etag.encode()):
        return Response(status_code=304, headers=headers)
    headers |= {"Content-Length": str(found.size), "Content-Disposition": files.attachment("model.safetensors")}
    if wants_no_body(request):
        return Response(media_type=_TYPE, headers=headers)
    return StreamingResponse(found.read(parts.storage), media_type=_TYPE, headers=headers)
