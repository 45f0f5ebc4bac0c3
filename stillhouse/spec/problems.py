"""From what pydantic found to what a person can mend: one entry per field, at its JSON pointer."""

from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError

from stillhouse.spec.errors import FieldError

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
}


def field_errors(error: ValidationError, given: Any) -> list[FieldError]:
    """Translate `error`, raised on the parsed JSON `given`. Values are not repeated: they may be secret."""
    found: dict[str, list[tuple[str, str, bool]]] = {}
    for item in error.errors(include_url=False, include_input=False):
        field, item = _field_of_a_rule(item)
        pointer = _pointer(item["loc"], given, item["type"]) + "".join(f"/{step}" for step in field)
        auto = item["type"] == "literal_error" and item.get("ctx", {}).get("expected") == "'auto'"
        code = _CODES.get(item["type"], item["type"])
        found.setdefault(pointer, []).append((code, _sentence(item), auto))
    return [
        _merged(pointer, entries)
        for pointer, entries in found.items()
        if not _only_a_consequence(pointer, entries, found)
    ]


def _field_of_a_rule(item: Any) -> tuple[list[str], Any]:
    """A rule on several fields names the one to mend before a colon: `losses: at least one weight must be …`."""
    if item["type"] != "value_error":
        return [], item
    field, colon, sentence = str(item["msg"]).removeprefix("Value error, ").partition(": ")
    if not colon or not field.isidentifier():
        return [], item
    return [field], {**item, "msg": sentence}


def _pointer(loc: Iterable[int | str], given: Any, kind: str) -> str:
    """Keep the steps of `loc` that exist in the input; the others are pydantic's names for members of a union."""
    steps = list(loc)
    out: list[str] = []
    here: Any = given
    for position, step in enumerate(steps):
        last = position == len(steps) - 1
        if _has(here, step):
            here = here[step]
        elif not (last and kind == "missing"):
            continue
        out.append(str(step).replace("~", "~0").replace("/", "~1"))
    return "".join(f"/{step}" for step in out)


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
    if kind == "missing":
        return "This field is required."
    if kind == "union_tag_invalid":
        return f"Unknown {str(ctx.get('discriminator', 'kind')).strip(chr(39))}; it can be {ctx.get('expected_tags')}."
    if kind == "union_tag_not_found":
        return f"Say which with the field {ctx.get('discriminator')}."
    if kind == "value_error":
        return message.removeprefix("Value error, ").capitalize() + "."
    return message.replace("Input should", "Should").rstrip(".") + "."


def _merged(pointer: str, entries: list[tuple[str, str, bool]]) -> FieldError:
    """A field that is `number or auto` fails once per member of the union; the person made one mistake."""
    real = [entry for entry in entries if not entry[2]]
    code, sentence, _ = (real or entries)[0]
    if real and len(real) < len(entries):
        sentence = sentence.rstrip(".") + ", or auto."
    return FieldError(pointer=pointer, code=code, detail=sentence)


def _only_a_consequence(pointer: str, entries: list[tuple[str, str, bool]], found: Iterable[str]) -> bool:
    """A list is reported too short (and not `auto`) when its items were refused, an object no number when one of its
    fields was: the entries below suffice."""
    follows = all(auto or code == "too_short" or code.endswith("_type") for code, _, auto in entries)
    return follows and any(other.startswith(f"{pointer}/") for other in found)


def parameter_errors(items: Iterable[Any]) -> list[FieldError]:
    """The same for query parameters, from the items of a framework's validation error: `?name` is the place."""
    found: dict[str, list[tuple[str, str, bool]]] = {}
    for item in items:
        field, item = _field_of_a_rule(item)
        name = "".join(f"?{step}" for step in [*item["loc"][1:2], *field])
        auto = item["type"] == "literal_error" and item.get("ctx", {}).get("expected") == "'auto'"
        found.setdefault(name, []).append((_CODES.get(item["type"], item["type"]), _sentence(item), auto))
    return [_merged(name, entries) for name, entries in found.items()]
