"""Which field somebody meant who wrote one that does not exist."""

import difflib
from collections.abc import Iterator, Sequence
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel

_LONGEST = 60
"""Characters of a name worth comparing: no field of ours is longer, and the comparison is quadratic."""


def meant(steps: Sequence[int | str], given: Any, model: type[BaseModel]) -> str | None:
    """The field of `model` most like the last of `steps` into the JSON `given`, and not given already; None when none
    is like it."""
    models, here = {model}, given
    for step in steps[:-1]:
        here = here[step]
        if isinstance(step, str):
            models = {inner for one in models for inner in _inside(one, step)}
        models = {one for one in models if _may_be(one, here)}
    wrong = str(steps[-1]) if steps else ""
    if not isinstance(here, dict) or len(wrong) > _LONGEST:
        return None
    names = sorted({name for one in models for name in one.model_fields} - set(here))
    written = wrong.lower().replace("-", "_")  # `Batch-Size` is no other word than `batch_size`
    return next(iter(difflib.get_close_matches(written, names, n=1, cutoff=0.7)), None)


def _inside(model: type[BaseModel], field: str) -> Iterator[type[BaseModel]]:
    """The models the values of a field can be made of."""
    if field in model.model_fields:
        yield from _models(model.model_fields[field].annotation)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)


def _may_be(model: type[BaseModel], here: Any) -> bool:
    """False when a field that tells models apart, such as `kind`, has the value of another one."""
    fields = model.model_fields.items() if isinstance(here, dict) else ()
    tags = {name: get_args(field.annotation) for name, field in fields if get_origin(field.annotation) is Literal}
    return all(name not in here or here[name] in values for name, values in tags.items())
