"""Which field somebody meant who wrote one that does not exist, or wrote a bare value where an object belongs."""

import difflib
import json
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError

from stillhouse.spec.base import AUTO
from stillhouse.spec.ids import ID_PATTERN

_LONGEST = 60
"""Characters of a name worth comparing: no field of ours is longer, and the comparison is quadratic."""


def meant(steps: Sequence[int | str], given: Any, model: type[BaseModel]) -> str | None:
    """The field of `model` most like the last of `steps` into the JSON `given`, and not given already; None when none
    is like it."""
    models, here = _reached(steps[:-1], given, model)
    if not isinstance(here, dict):
        return None
    return nearest(str(steps[-1]) if steps else "", {name for one in models for name in one.model_fields} - set(here))


def nearest(wrong: str, names: Iterable[str]) -> str | None:
    """Of these names of fields the one most like `wrong`; None when none is like it."""
    if len(wrong) > _LONGEST:
        return None
    written = wrong.lower().replace("-", "_")  # `Batch-Size` is no other word than `batch_size`
    return next(iter(difflib.get_close_matches(written, sorted(names), n=1, cutoff=0.7)), None)


def spelled_as_object(steps: Sequence[int | str], given: Any, model: type[BaseModel]) -> str | None:
    """What somebody meant who wrote no object at `steps`: the object a bare string belongs in, such as
    `{"id": "ds_…"}`, or else the fields there are. None where neither is known. Text that may be secret is left out."""
    models, here = _reached(steps, given, model)
    text = here if isinstance(here, str) and here != AUTO and len(here) <= _LONGEST else ""
    if any(text in one.model_fields for one in models):
        return f'{{"{text}": …}}'
    takers = {
        (name, _is_ours(one, name, text)) for one in models for name in one.model_fields if _takes(one, name, text)
    }
    best = {taker for taker in takers if taker[1]} or takers
    if len(best) == 1:
        [(name, ours)] = best
        return f'{{"{name}": {json.dumps(text) if ours else "…"}}}'
    fields = [list(one.model_fields) for one in models]
    return "{" + ", ".join(f'"{name}": …' for name in fields[0][:4]) + "}" if len(fields) == 1 else None


def _reached(steps: Sequence[int | str], given: Any, model: type[BaseModel]) -> tuple[set[type[BaseModel]], Any]:
    """What `steps` lead to: the models its value can be made of, and the value."""
    models, here = {model}, given
    for step in steps:
        here = here[step]
        if isinstance(step, str):
            models = {inner for one in models for inner in _inside(one, step)}
        models = {one for one in models if _may_be(one, here)}
    return models, here


def _takes(model: type[BaseModel], name: str, text: str) -> bool:
    """Whether the field is made for texts such as this one, not for any."""
    return _fits(model, name, text) and not _fits(model, name, "?")


def _fits(model: type[BaseModel], name: str, text: str) -> bool:
    try:
        _reader(model, name).validate_python(text, strict=True)
    except ValidationError:
        return False
    return True


@lru_cache(maxsize=512)
def _reader(model: type[BaseModel], name: str) -> TypeAdapter[Any]:
    field = model.model_fields[name]
    bounded: Any = Annotated[field.annotation, field]
    return TypeAdapter(bounded)


def _is_ours(model: type[BaseModel], name: str, text: str) -> bool:
    """Whether `text` is an id or one of the field's own words, and no one's secret."""
    return ID_PATTERN.fullmatch(text) is not None or text in _words(model.model_fields[name].annotation)


def _words(annotation: Any) -> Iterator[str]:
    if get_origin(annotation) is Literal:
        yield from get_args(annotation)
    else:
        for part in get_args(annotation):
            yield from _words(part)


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
