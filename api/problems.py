"""Every error becomes problem details (RFC 9457), and no answer repeats what an exception said to us."""

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from core.db import is_outage
from stillhouse.spec.errors import (
    Forbidden,
    Invalid,
    MethodNotAllowed,
    NotFound,
    Problem,
    QueueFull,
    RateLimited,
    ServerFault,
    StillhouseError,
    Unauthorized,
    Unavailable,
    from_problem,
)
from stillhouse.spec.problems import parameter_errors

MEDIA_TYPE = "application/problem+json"
RETRY_SECONDS = 2
"""How long a caller should wait for a part that does not answer."""


def render(error: StillhouseError, request_id: str, headers: Mapping[str, str] | None = None) -> Response:
    """The answer that tells a caller of `error`."""
    problem = error.problem().model_copy(update={"request_id": request_id})
    return Response(
        problem.model_dump_json(exclude_none=True),
        status_code=error.status,
        media_type=MEDIA_TYPE,
        headers={**_headers(error), **(headers or {})},
    )


def declared(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """`responses=` of a route that can answer with these errors."""
    return {status: {"model": Problem} for status in (400, 401, 403, 422, 429, 500, 503, *statuses)}


def install(app: FastAPI) -> None:
    """Handle every exception a route can raise; `Edge` handles those nobody foresaw."""
    app.add_exception_handler(StillhouseError, _on_stillhouse_error)
    app.add_exception_handler(RequestValidationError, _on_bad_parameters)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(DBAPIError, _on_database_error)
    app.add_exception_handler(PoolTimeout, _on_database_error)


def server_fault() -> ServerFault:
    """The answer to what should not happen."""
    return ServerFault(
        "The service met a fault of its own.", hint="Try again; if it stays, tell the operator the request id."
    )


def unavailable() -> Unavailable:
    """The answer while the database is away."""
    return Unavailable("The database does not answer.", hint="Try again in a moment.")


def _headers(error: StillhouseError) -> dict[str, str]:
    if isinstance(error, Unauthorized):
        return {"WWW-Authenticate": "Bearer"}
    if isinstance(error, Forbidden) and error.errors:
        # RFC 6750 §3.1.
        needed = error.errors[0].code.removeprefix("needs_")
        return {"WWW-Authenticate": f'Bearer error="insufficient_scope", scope="{needed}"'}
    if isinstance(error, RateLimited | QueueFull) and error.retry_after_seconds is not None:
        return {"Retry-After": str(error.retry_after_seconds)}
    if isinstance(error, Unavailable):
        return {"Retry-After": str(RETRY_SECONDS)}
    return {}


async def _on_stillhouse_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, StillhouseError)
    request.state.problem = error.code
    return render(error, request.state.request_id)


async def _on_bad_parameters(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    wrong = parameter_errors(error.errors())
    request.state.problem = Invalid.code
    return render(Invalid("The query is wrong.", errors=wrong), request.state.request_id)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = {"Allow": _allowed(request)} if error.status_code == 405 else error.headers
    return render(_known(error), request.state.request_id, headers)


def _allowed(request: Request) -> str:
    """All methods of the path (RFC 9110 §10.2.1). The framework names those of the first route that matches it."""
    routes = list(iter_route_contexts(request.app.routes))
    matching = (route for route in routes if _matches(route.original_route, request.scope["path"]))
    first = next(matching, None)
    found = {
        method for route in routes if first is not None and route.path == first.path for method in route.methods or ()
    }
    return ", ".join(sorted(found | {"HEAD"} if "GET" in found else found))


def _matches(route: BaseRoute, path: str) -> bool:
    return isinstance(route, Route) and route.path_regex.match(path) is not None


def _known(error: HTTPException) -> StillhouseError:
    if error.status_code == 404:
        return NotFound("There is no such path.", hint="/openapi.json lists all paths.")
    if error.status_code == 405:
        return MethodNotAllowed("The path does not take this method.", hint="The Allow header says which it takes.")
    problem = Problem(type="", title="", status=error.status_code, detail=str(error.detail), code="")
    return from_problem(problem)


async def _on_database_error(request: Request, error: Exception) -> Response:
    if isinstance(error, PoolTimeout) or is_outage(error):
        request.state.problem = Unavailable.code
        return render(unavailable(), request.state.request_id)
    raise error
