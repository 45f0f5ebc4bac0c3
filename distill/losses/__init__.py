"""Losses: one per file, filed under the kinds of `stillhouse.spec.LOSSES`, and their weighted sum."""

from collections.abc import Sequence
from functools import reduce
from operator import add

from torch import Tensor

from distill.losses.ce import ce
from distill.losses.dist import dist
from distill.losses.dkd import dkd
from distill.losses.jsd import jsd
from distill.losses.kd import kd
from distill.losses.logits import logit_cosine, logit_mse
from distill.losses.registry import LOSSES
from distill.losses.reverse_kl import reverse_kl
from stillhouse.spec import concrete
from stillhouse.spec.losses import Loss

__all__ = [
    "LOSSES",
    "ce",
    "dist",
    "dkd",
    "jsd",
    "kd",
    "logit_cosine",
    "logit_mse",
    "needs_teacher",
    "reverse_kl",
    "weighted",
]


def weighted(
    losses: Sequence[Loss], student: Tensor, labels: Tensor, teacher: Tensor | None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Σ weight · loss, and each loss unweighted and detached by its kind.

    `student` and `teacher` are logits [N, classes], `labels` int64 [N]. All results are scalars, means over the rows.
    """
    values = {p.kind: LOSSES[p.kind].compute(p, student, labels, teacher) for p in losses}
    total = reduce(add, (concrete(p.weight) * values[p.kind] for p in losses))
    return total, {kind: value.detach() for kind, value in values.items()}


def needs_teacher(losses: Sequence[Loss]) -> bool:
    """True when any of the losses reads the teacher's outputs."""
    return any(LOSSES[params.kind].reads_teacher for params in losses)
