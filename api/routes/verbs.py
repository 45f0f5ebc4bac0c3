"""What can be asked of a job: /v1/jobs/{id}/cancel, pause, resume, finish, retry, clone."""

from typing import Annotated, Any

from fastapi import APIRouter, Header
from starlette.responses import Response

from api.auth import Project
from api.bodies import OptionalBody
from api.parts import InParts, Parts
from api.problems import declared
from api.routes.jobs import job_answer, submitted_answer
from api.services import cloning, verbs
from models.job import JobRow
from stillhouse.spec.states import JobStatus
from stillhouse.spec.views import Job

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["jobs"])

_RESTING = {JobStatus.PAUSED, JobStatus.CANCELLED, JobStatus.SUCCEEDED}
_PATCH_BODY = {"requestBody": {"required": False, "content": {"application/json": {"schema": {"type": "object"}}}}}


def _asked(resting: str) -> dict[int | str, dict[str, Any]]:
    return {200: {"model": Job, "description": resting}, **declared(404, 409)}


@router.post("/cancel", status_code=202, response_model=Job, responses=_asked("The job is cancelled."))
def cancel_job(job_id: str, project: Project, parts: InParts) -> Response:
    """Stop a job for good, from any state in which it is not over. Harmless when repeated."""
    return _answer(parts, verbs.cancel(parts, project, job_id))


@router.post("/pause", status_code=202, response_model=Job, responses=_asked("The job is paused."))
def pause_job(job_id: str, project: Project, parts: InParts) -> Response:
    """Put a job aside: it writes a checkpoint and gives its device back. Harmless when repeated."""
    return _answer(parts, verbs.pause(parts, project, job_id))


@router.post("/resume", status_code=202, response_model=Job, responses=declared(404, 409))
def resume_job(job_id: str, project: Project, parts: InParts) -> Response:
    """Go on with a paused job, from its checkpoint. Harmless when repeated."""
    return _answer(parts, verbs.resume(parts, project, job_id))


@router.post("/finish", status_code=202, response_model=Job, responses=_asked("The job has succeeded."))
def finish_job(job_id: str, project: Project, parts: InParts) -> Response:
    """Stop training now, keep the best student so far, go on to evaluation and export. Harmless when repeated.

    409 `not_ready` while there is no student: before the job distils.
    """
    return _answer(parts, verbs.finish(parts, project, job_id))


@router.post("/retry", status_code=202, response_model=Job, responses=declared(404, 409))
def retry_job(job_id: str, project: Project, parts: InParts) -> Response:
    """Try a failed or cancelled job again: the same job, with all its attempts anew. Harmless when repeated.

    A failed job goes on from its last checkpoint, if it has one. Those of a cancelled one are soon removed, and then it
    starts anew: with the same student in the end.
    """
    return _answer(parts, verbs.retry(parts, project, job_id))


@router.post(
    "/clone",
    status_code=202,
    response_model=Job,
    responses=declared(404, 413, 415),
    openapi_extra=_PATCH_BODY,
)
def clone_job(
    job_id: str,
    body: OptionalBody,
    project: Project,
    parts: InParts,
    idempotency_key: Annotated[str | None, Header(alias="Idempotency-Key")] = None,
) -> Response:
    """Submit a new job with the spec of this one, as it was posted. The body, if any, changes it (JSON merge patch).

    The same `Idempotency-Key` with the same body makes one job, however often it is sent.
    """
    return submitted_answer(parts, cloning.clone(parts, project, job_id, body, idempotency_key=idempotency_key))


def _answer(parts: Parts, row: JobRow) -> Response:
    return job_answer(parts, row, status_code=200 if JobStatus(row.status) in _RESTING else 202)
