"""/v1/jobs: submit, look, list, delete, restore."""

from typing import Annotated

from fastapi import APIRouter, Header, Query
from starlette.requests import Request
from starlette.responses import Response

from api import asked, polling
from api.auth import Project, bearer
from api.bodies import Body
from api.parts import InParts, Parts
from api.problems import declared
from api.services import jobs, trash
from api.services.jobs import JobsQuery, Submitted
from api.views import job_json
from models.job import JobRow
from stillhouse.spec.base import Contract
from stillhouse.spec.views import Job, Page, ValidatedJob

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

_SPEC_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/JobSpec"}}},
    }
}


class SubmitQuery(Contract, strict=False):
    """How to take a posted spec."""

    validate_only: bool = False
    """Check and resolve the spec, estimate its cost, and stop there."""


@router.post(
    "",
    status_code=202,
    response_model=Job,
    responses={200: {"model": ValidatedJob, "description": "With `validate_only`."}, **declared(413, 415)},
    openapi_extra=_SPEC_BODY,
)
def create_job(
    body: Body,
    project: Project,
    parts: InParts,
    query: Annotated[SubmitQuery, Query()],
    idempotency_key: Annotated[str | None, Header(alias="Idempotency-Key")] = None,
) -> Response:
    """Submit a distillation. The same `Idempotency-Key` with the same body makes one job, however often it is sent."""
    if query.validate_only:
        return Response(jobs.validate(parts, project, body).model_dump_json(), media_type="application/json")
    return submitted_answer(parts, jobs.submit(parts, project, body, idempotency_key=idempotency_key))


@router.get("", responses=declared(410), response_model_exclude_unset=True)
def list_jobs(project: Project, parts: InParts, query: Annotated[JobsQuery, Query()]) -> Page[Job]:
    """Jobs, newest first."""
    return jobs.page(parts, project, query)


@router.get(
    "/{job_id}",
    response_model=Job,
    responses={304: {"description": "The job has not changed."}, **declared(404)},
    dependencies=[bearer],
)
async def get_job(job_id: str, parts: InParts, request: Request) -> Response:
    """A job as it is now. With `If-None-Match` and the ETag of the last answer: 304 while nothing changed."""
    status, headers, body = await polling.answer(parts, request.scope, job_id)
    asked.check(request)
    response = Response(body, status_code=status)
    response.raw_headers = list(headers)
    return response


def submitted_answer(parts: Parts, submitted: Submitted) -> Response:
    """The answer to a submission."""
    headers = {"Location": f"/v1/jobs/{submitted.row.id}", "Retry-After": "1"}
    if submitted.replayed:
        headers["Idempotent-Replayed"] = "true"
    return job_answer(parts, submitted.row, status_code=202, headers=headers)


@router.delete("/{job_id}", response_model=Job, responses=declared(404, 409))
def delete_job(job_id: str, project: Project, parts: InParts) -> Response:
    """Put a job that is over into the trash, with its files. Until `purge_at` it can be restored, and looked at by its
    id; then it is removed for good. Models it made stay. Harmless when repeated."""
    return job_answer(parts, trash.delete_job(parts, project, job_id))


@router.post("/{job_id}/restore", response_model=Job, responses=declared(404))
def restore_job(job_id: str, project: Project, parts: InParts) -> Response:
    """Take a job out of the trash. Harmless when repeated."""
    return job_answer(parts, trash.restore_job(parts, project, job_id))


def job_answer(parts: Parts, row: JobRow, *, status_code: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A job as an answer."""
    body = job_json(row, parts.line.place_of(row))
    return Response(body, status_code=status_code, headers=headers, media_type="application/json")
