"""How to follow a job: events (pages or a stream), log, metrics."""

from typing import Annotated

from fastapi import APIRouter, Header, Query
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from api.auth import Project
from api.middleware import wants_no_body
from api.parts import InParts
from api.problems import declared
from api.services import following
from api.services.following import EventsQuery, MetricsQuery
from stillhouse.spec.views import Event, MetricSeries, Page

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["following"])

_STREAM = "text/event-stream"
_AS_IT_COMES = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


@router.get(
    "/events",
    response_model=Page[Event],
    responses={200: {"content": {_STREAM: {"schema": {"type": "string"}}}}, **declared(404)},
)
def list_events(
    job_id: str,
    project: Project,
    parts: InParts,
    query: Annotated[EventsQuery, Query()],
    request: Request,
    last_event_id: Annotated[str | None, Header(alias="Last-Event-ID")] = None,
) -> Page[Event] | Response:
    """What happened to a job, oldest first. With `Accept: text/event-stream` the events come as they happen.

    A stream goes on after `Last-Event-ID`, and ends with the event `done` once the job is over.
    """
    if _STREAM not in request.headers.get("accept", ""):
        return following.page(parts, project, job_id, query)
    following.check(parts, project, job_id)
    after = following.start_of_stream(last_event_id, query)
    if wants_no_body(request):
        return Response(media_type=_STREAM, headers=_AS_IT_COMES)
    stream = following.stream(parts, project, job_id, after=after, type=query.type)
    return StreamingResponse(stream, media_type=_STREAM, headers=_AS_IT_COMES)


@router.get(
    "/log",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **declared(404)},
)
def get_log(job_id: str, project: Project, parts: InParts) -> Response:
    """The events as lines of text."""
    following.check(parts, project, job_id)
    return StreamingResponse(following.log_text(parts, project, job_id), media_type="text/plain")


@router.get("/metrics", responses=declared(404))
def get_metrics(job_id: str, project: Project, parts: InParts, query: Annotated[MetricsQuery, Query()]) -> MetricSeries:
    """Series of a job through all its attempts, each thinned to `max_points`."""
    return following.metrics(parts, project, job_id, query)
