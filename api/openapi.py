"""The API's description: what FastAPI gathers, with our errors in it. `python -m api.openapi FILE` writes it."""

import json
import sys
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute, iter_route_contexts

from api.auth import administrator, scope_of_method
from api.problems import MEDIA_TYPE
from stillhouse.spec.keys import Scope

_PROBLEM = {"$ref": "#/components/schemas/Problem"}


def describe(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, made once."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
        administrative = _administrative(app)
        for operations in document["paths"].values():
            for method, operation in operations.items():
                _name_scope(operation, method, admin=operation["operationId"] in administrative)
                _name_problems(operation["responses"])
        app.openapi_schema = document
    return app.openapi_schema


def text(app: FastAPI) -> str:
    """The document as it is kept under version control: sorted, so that a difference is a change."""
    return json.dumps(describe(app), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def _name_problems(responses: dict[str, Any]) -> None:
    """Errors have a media type of their own; FastAPI gives them that of the route."""
    for response in responses.values():
        content = response.get("content", {})
        if any(media.get("schema") == _PROBLEM for media in content.values()):
            response["content"] = {MEDIA_TYPE: {"schema": _PROBLEM}}


def _name_scope(operation: dict[str, Any], method: str, *, admin: bool) -> None:
    """What a key must be allowed, as OpenAPI 3.1 lets schemes other than OAuth say it: as the name of a role."""
    needed: Scope = "admin" if admin else scope_of_method(method.upper())
    for requirement in operation.get("security", ()):
        requirement.update({scheme: [needed] for scheme in requirement})


def _administrative(app: FastAPI) -> set[str]:
    """Operations that ask for an administrator. An operation is called like its function."""
    routes = (context.original_route for context in iter_route_contexts(app.routes))
    return {route.name for route in routes if isinstance(route, APIRoute) and _asks(route.dependant)}


def _asks(dependant: Dependant) -> bool:
    return dependant.call is administrator or any(map(_asks, dependant.dependencies))


def main() -> None:
    """Write the document to the file named on the command line."""
    # Here, because the app itself uses this module.
    from api.main import create_app

    if len(sys.argv) != 2:
        sys.exit("usage: python -m api.openapi FILE")
    Path(sys.argv[1]).write_text(text(create_app()), encoding="utf-8")


if __name__ == "__main__":
    main()
