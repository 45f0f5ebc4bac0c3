"""`GET /v1/jobs/{id}`: what every waiting client asks for again and again, so the one route that is made to be cheap.

It means what a plain route would mean. It takes one SQL statement for key, project and job together; the job's bytes
are kept as long as its version stays; and FastAPI's dependency solving, which costs more than all of that, is skipped.
"""

import hashlib
from typing import Any

from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api import conditional
from api.answers import Answer
from api.auth import bad_key, shown_key
from api.parts import Parts
from api.services import jobs
from api.views import job_json
from models import keys
from models.glance import Glance, WouldBlock
from stillhouse.spec.states import JobStatus

_NOBODY = "job_"
"""Stands for an id that has not the form of one: the key is still checked."""


class PolledRoute(APIRoute):
    """A route declared like any other, and answered by `poll`. Errors go to the app's handlers as from any route."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.app = _serve


async def _serve(scope: Scope, receive: Receive, send: Send) -> None:
    response = await poll(Request(scope, receive))
    await response(scope, receive, send)


async def poll(request: Request) -> Response:
    """The job, or the word that it has not changed. Raises Unauthorized, NotFound."""
    parts: Parts = request.app.state.parts
    job_id = request.path_params["job_id"]
    digest = keys.digest(shown_key(request.scope["headers"]))
    glance = await _look(parts, digest, job_id if jobs.is_id(job_id) else _NOBODY)
    if glance is None:
        raise bad_key()
    if glance.version is None:
        raise jobs.missing(job_id)
    answer = parts.answers.get(job_id, glance.version)
    if answer is None:
        answer = await run_in_threadpool(_load, parts, glance.project_id, job_id)
        parts.answers.keep(job_id, answer)
    if conditional.none_match(_if_none_match(request), answer.etag):
        return _Ready(304, answer.headers_unchanged, b"")
    return _Ready(200, answer.headers, answer.body)


async def _look(parts: Parts, digest: str, job_id: str) -> Glance | None:
    try:
        return parts.glances.at_once(digest, job_id)
    except WouldBlock:
        return await run_in_threadpool(parts.glances.look, digest, job_id)


def _load(parts: Parts, project_id: str, job_id: str) -> Answer:
    with parts.database.read() as session:
        row = jobs.find(session, project_id, job_id)
    body = job_json(row)
    # The version alone would not do: another release of the service may word the same job differently.
    etag = conditional.quoted(f"{row.version}-{hashlib.sha256(body).hexdigest()[:16]}")
    shared = [(b"etag", etag.encode()), (b"cache-control", b"private, no-cache")]
    if not JobStatus(row.status).final:
        shared.append((b"retry-after", b"1"))
    typed = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    return Answer(version=row.version, etag=etag, body=body, headers=typed + shared, headers_unchanged=shared)


def _if_none_match(request: Request) -> str | None:
    for name, value in request.scope["headers"]:
        if name == b"if-none-match":
            return str(value, "latin-1")
    return None


class _Ready(Response):
    """A response whose headers are made already."""

    def __init__(self, status_code: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        self.status_code, self.raw_headers, self.body, self.background = status_code, headers, body, None
