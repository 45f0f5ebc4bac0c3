"""The losses a job can weigh, by the kind the spec gives them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from distill.registry import Registry

# (own spec model, student logits [N, classes], labels [N], teacher logits [N, classes] or None) → a scalar, the mean
# over rows.
Compute = Callable[[Any, Tensor, Tensor, Tensor | None], Tensor]


@dataclass(frozen=True)
class Term:
    """One kind of loss."""

    compute: Compute
    reads_teacher: bool


LOSSES: Registry[Term] = Registry("loss")


def register(kind: str, *, reads_teacher: bool) -> Callable[[Compute], Compute]:
    """Decorator that files a loss under its `kind`."""

    def file(compute: Compute) -> Compute:
        LOSSES.register(kind)(Term(compute, reads_teacher))
        return compute

    return file


def teacher_logits(kind: str, teacher: Tensor | None) -> Tensor:
    """The teacher's logits, for a loss that cannot do without."""
    if teacher is None:
        raise ValueError(f"the {kind} loss reads the teacher's logits, and none were given")
    return teacher
