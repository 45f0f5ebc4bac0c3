"""From what pydantic found to what a person can mend: one entry per field, at its JSON pointer."""

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ValidationError

from stillhouse.spec.errors import FieldError
from stillhouse.spec.forms import worded
from stillhouse.spec.ids import NAMED, id_wanted, prefix_of
from stillhouse.spec.spelling import meant, spelled_as_object

_CODES = {
    "extra_forbidden": "unknown_field",
    "missing": "required",
    "union_tag_invalid": "unknown_choice",
    "union_tag_not_found": "required",
    "literal_error": "unknown_choice",
    "finite_number": "not_finite",
    "value_error": "contradiction",
    # pydantic names these by how a model is made, which is no business of the caller and changes with it.
    "dict_type": "not_an_object",
    "model_type": "not_an_object",
    "model_attributes_type": "not_an_object",
    "tuple_type": "list_type",
}
_COMPARED = 20
"""Wrong fields for which the one that was meant is looked for: a body may hold many thousands."""


def field_errors(error: ValidationError, given: Any, model: type[BaseModel]) -> list[FieldError]:
    """Translate `error`, raised by `model` on the parsed JSON `given`. Values are not repeated: they may be secret."""
    found: dict[str, list[tuple[str, str, bool]]] = {}
    for item in error.errors(include_url=False):
        field, item = _field_of_a_rule(item)
        steps = _steps(item["loc"], given, item["type"])
        pointer = _pointer(steps) + "".join(f"/{step}" for step in field)
        auto = item["type"] == "literal_error" and item.get("ctx", {}).get("expected") == "'auto'"
        code = _CODES.get(item["type"], item["type"])
        if code == "unknown_field" and len(found) < _COMPARED:
            sentence = _no_such_field(steps, given, model)
        elif code == "not_an_object" and len(found) < _COMPARED:
            sentence = _no_object(steps, given, model)
        else:
            sentence = _sentence(item)
        found.setdefault(pointer, []).append((code, sentence, auto))
    above = _above(found)
    return [
        _merged(pointer, entries)
        for pointer, entries in found.items()
        if not (pointer in above and _follows_from_others(entries))
    ]


def _field_of_a_rule(item: Any) -> tuple[list[str], Any]:
    """A rule on several fields names the one to mend before a colon: `losses: at least one weight must be …`."""
    if item["type"] != "value_error":
        return [], item
    field, colon, sentence = str(item["msg"]).removeprefix("Value error, ").partition(": ")
    if not colon or not field.isidentifier():
        return [], item
    return [field], {**item, "msg": sentence}


def _no_such_field(steps: list[int | str], given: Any, model: type[BaseModel]) -> str:
    name = meant(steps, given, model)
    return "There is no such field." if name is None else f"There is no such field; did you mean {name}?"


def _no_object(steps: list[int | str], given: Any, model: type[BaseModel]) -> str:
    example = spelled_as_object(steps, given, model)
    return "Should be an object with named fields" + ("." if example is None else f": {example}.")


def _pointer(steps: Iterable[int | str]) -> str:
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in steps)


def _steps(loc: Iterable[int | str], given: Any, kind: str) -> list[int | str]:
    """Keep the steps of `loc` that exist in the input; the others are pydantic's names for members of a union."""
    steps = list(loc)
    out: list[int | str] = []
    here: Any = given
    for position, step in enumerate(steps):
        last = position == len(steps) - 1
        if _has(here, step):
            here = here[step]
        elif not (last and kind == "missing"):
            continue
        out.append(step)
    return out


def _has(container: Any, step: int | str) -> bool:
    if isinstance(container, list):
        return isinstance(step, int) and step < len(container)
    return isinstance(container, dict) and step in container


def _sentence(item: Any) -> str:
    kind, message, ctx = item["type"], str(item["msg"]), item.get("ctx", {})
    if kind == "extra_forbidden":
        return "There is no such field."
    if _CODES.get(kind) == "not_an_object":
        return "Should be an object with named fields."
    if _CODES.get(kind) == "list_type":
        return "Should be a list."
    if kind in ("too_short", "too_long"):
        return _count(kind, ctx)
    if kind == "missing":
        return "This field is required."
    if kind == "union_tag_invalid":
        return f"Unknown {str(ctx.get('discriminator', 'kind')).strip(chr(39))}; it can be {ctx.get('expected_tags')}."
    if kind == "union_tag_not_found":
        return f"Say which with the field {ctx.get('discriminator')}."
    if kind == "value_error":
        return message.removeprefix("Value error, ").capitalize() + "."
    if kind == "string_pattern_mismatch" and (prefix := prefix_of(ctx["pattern"])) is not None:
        return f"Should be {id_wanted(prefix, item['input'])}; {NAMED[prefix].listing} lists yours."
    if kind == "string_pattern_mismatch" and (words := worded(ctx["pattern"])) is not None:
        return words
    return message.replace("Input should", "Should").rstrip(".") + "."


def _count(kind: str, ctx: dict[str, Any]) -> str:
    """pydantic speaks of tuples and of a validation that the caller knows nothing of."""
    bound, word = (ctx["min_length"], "least") if kind == "too_short" else (ctx["max_length"], "most")
    found = ctx.get("actual_length")  # None: counting stopped at the limit
    return f"Should have at {word} {bound} item{'' if bound == 1 else 's'}, not {'more' if found is None else found}."


def _merged(pointer: str, entries: list[tuple[str, str, bool]]) -> FieldError:
    """A field that is `number or auto` fails once per member of the union; the person made one mistake."""
    real = [entry for entry in entries if not entry[2]]
    code, sentence, _ = (real or entries)[0]
    if real and len(real) < len(entries):
        sentence = sentence.rstrip(".") + ", or auto."
    return FieldError(pointer=pointer, code=code, detail=sentence)


def _follows_from_others(entries: list[tuple[str, str, bool]]) -> bool:
    """A list is reported too short (and not `auto`) when its items were refused, an object no number when one of its
    fields was: the entries below suffice."""
    return all(auto or code == "too_short" or code.endswith("_type") for code, _, auto in entries)


def _above(pointers: Iterable[str]) -> set[str]:
    """All pointers that lead to one of these. Each is met once: there may be many thousands."""
    above: set[str] = set()
    for pointer in pointers:
        while (pointer := pointer.rpartition("/")[0]) and pointer not in above:
            above.add(pointer)
    return above


def parameter_errors(items: Iterable[Any]) -> list[FieldError]:
    """The same for query parameters, from the items of a framework's validation error: `?name` is the place."""
    found: dict[str, list[tuple[str, str, bool]]] = {}
    for item in items:
        field, item = _field_of_a_rule(item)
        name = "".join(f"?{step}" for step in [*item["loc"][1:2], *field])
        auto = item["type"] == "literal_error" and item.get("ctx", {}).get("expected") == "'auto'"
        found.setdefault(name, []).append((_CODES.get(item["type"], item["type"]), _sentence(item), auto))
    return [_merged(name, entries) for name, entries in found.items()]
