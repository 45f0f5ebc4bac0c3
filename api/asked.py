"""The query of a request as it was sent: only what the route has, and once what has one value.

The framework says nothing of a parameter that a route lacks, and of one that comes twice it takes the last.
"""

from collections import Counter
from collections.abc import Iterator
from typing import get_args, get_origin

from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.requests import Request

from stillhouse.spec.errors import FieldError, Invalid
from stillhouse.spec.spelling import nearest

_COMPARED = 20
"""Unknown names for which the one that was meant is looked for: an address may hold thousands."""


def check(request: Request) -> None:
    """Raise Invalid for parameters that the route does not have, and for repeated ones that have a single value."""
    sent = Counter(name for name, _ in request.query_params.multi_items())
    known = _parameters(request.scope["route"]) if sent else {}
    errors = [_unknown(name, known, compare=i < _COMPARED) for i, name in enumerate(n for n in sent if n not in known)]
    for name, count in sent.items():
        if count > 1 and not known.get(name, True):
            detail = f"Given {count:,} times, and it takes one value."
            errors.append(FieldError(pointer=f"?{name}", code="repeated", detail=detail))
    if errors:
        raise Invalid("The query is wrong.", errors=errors)


def _unknown(name: str, known: dict[str, bool], *, compare: bool) -> FieldError:
    like = nearest(name, known) if compare else None
    detail = "There is no such field" + ("." if like is None else f"; did you mean {like}?")
    return FieldError(pointer=f"?{name}", code="unknown_field", detail=detail)


def _parameters(route: APIRoute) -> dict[str, bool]:
    """Names of the query parameters of a route, each with whether it may come several times."""
    fields = {name: field for model in _models(route.dependant) for name, field in model.model_fields.items()}
    return {name: _is_list(field.annotation) for name, field in fields.items()}


def _models(dependant: Dependant) -> Iterator[type[BaseModel]]:
    """The models that hold the query of a route: every route that has one keeps it in a model."""
    yield from (field.field_info.annotation for field in dependant.query_params)  # type: ignore[misc]
    for inner in dependant.dependencies:
        yield from _models(inner)


def _is_list(annotation: object) -> bool:
    """Also within `… | None` and Annotated, in any order."""
    return get_origin(annotation) in (tuple, list) or any(map(_is_list, get_args(annotation)))
