"""The ground every contract model stands on: frozen, strict, closed."""

from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic.types import Strict

from stillhouse.spec import forms


class Contract(BaseModel):
    """A frozen value. Unknown fields are errors, `true` is not 1, and NaN is not a number."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class View(BaseModel):
    """An answer of the service. A newer server may add fields; an older client reads on."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)


Auto = Literal["auto"]
AUTO: Literal["auto"] = "auto"
"""The value of a field the caller leaves to the service; the resolved spec echoes what it became."""

T = TypeVar("T")


def concrete(value: T | Auto) -> T:
    """The value of a field of a resolved spec, where no field is `auto` any more."""
    if isinstance(value, str) and value == AUTO:
        raise ValueError("this spec is not resolved: a field is still auto")
    return value


# JSON has arrays, Python frozen models want tuples: the container is lax, its items stay strict.
LaxTuple = Strict(False)

Name = Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=forms.NAME)]
"""A name people give to things: letters, digits, space and `. : @ + - _`."""

LabelKey = Annotated[str, StringConstraints(min_length=1, max_length=63, pattern=forms.LABEL_KEY)]
LabelValue = Annotated[str, StringConstraints(max_length=255, pattern=forms.ONE_LINE)]
Labels = Annotated[dict[LabelKey, LabelValue], Field(max_length=32)]

PositiveInt = Annotated[int, Field(ge=1)]
Probability = Annotated[float, Field(ge=0, le=1)]
DropoutRate = Annotated[float, Field(ge=0, lt=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
