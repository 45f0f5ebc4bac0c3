"""What a spec may say about its student."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Discriminator, Field, Tag

from stillhouse.spec.base import concrete
from stillhouse.spec.students.architecture import Architecture, spelled_out
from stillhouse.spec.students.budget import WithinBudget
from stillhouse.spec.students.cnn import Cnn
from stillhouse.spec.students.mlp import Mlp
from stillhouse.spec.students.mobilenet import Mobilenet
from stillhouse.spec.students.resnet import Resnet
from stillhouse.spec.students.shrink import Shrink
from stillhouse.spec.students.timm import Timm


def _form(given: Any) -> str:
    by_budget = isinstance(given, WithinBudget) or (isinstance(given, dict) and "budget" in given)
    return "within a budget" if by_budget and not (isinstance(given, dict) and "name" in given) else "by name"


# Tags hold spaces, so that no field's name is taken for one in the place of an error.
Student = Annotated[
    Annotated[
        Annotated[Mlp | Cnn | Resnet | Mobilenet | Timm | Shrink, Field(discriminator="name")],
        BeforeValidator(spelled_out),
        Tag("by name"),
    ]
    | Annotated[WithinBudget, Tag("within a budget")],
    Discriminator(_form),
]
"""An architecture or `shrink`, told apart by `name`, or `{budget: …}`."""


def architecture_of(student: Student) -> Architecture:
    """The network a resolved spec's student is; of a budget that is still to be measured, the largest it can be.

    Raises ValueError when the spec is not resolved.
    """
    return candidates_of(student)[0]


def candidates_of(student: Student) -> tuple[Architecture, ...]:
    """All networks a resolved spec's student can be, the largest first. Raises ValueError when it is not resolved."""
    if isinstance(student, WithinBudget):
        return concrete(student.candidates)
    if isinstance(student, Shrink):
        if isinstance(student.architecture, str):
            raise ValueError("this spec is not resolved: the shrunk architecture is still auto")
        return (student.architecture,)
    return (student,)
