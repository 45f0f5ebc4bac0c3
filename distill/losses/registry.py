"""The losses a job can weigh, by the kind the spec gives them.

A loss is built once per stage of training into a module that turns a `Batch` into a scalar. What it learns or
remembers lives in that module: it trains with the student and is thrown away with the stage.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from distill.losses.softened import bucketed
from distill.losses.targets import Targets
from distill.registry import Registry
from distill.seeds import generator
from distill.taps import Outputs, Pair
from stillhouse.spec.losses import Ramp, Softened


@dataclass(frozen=True)
class Batch:
    """What a loss sees of one step."""

    student: Outputs
    teacher: Outputs | None
    targets: Targets
    """Labels [B] and all that is known of them."""
    positions: Tensor
    """Of these rows in the training split, int64 [B]."""
    step: int = 0
    """Optimizer step of the stage, from 0: what a random choice is derived from."""
    done: float = 0.0
    """Share of the stage's steps before this one: what a moving dial is read at."""


@dataclass(frozen=True)
class Context:
    """What a loss is built for."""

    pairs: tuple[Pair, ...] = ()
    """The layers it compares."""
    labels: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    """Of the whole training split, in its order: int64 [rows]."""
    stream: Callable[..., torch.Generator] = field(default=partial(generator, 0))
    """A random stream for each purpose, such as `stream("negatives", step)`."""


# (own spec model, student logits [B, classes], labels [B] or all that is known of them, teacher logits [B, classes] or
# None) → a scalar, the mean over the rows it reads.
Compute = Callable[[Any, Tensor, Any, Tensor | None], Tensor]
# (own spec model, context) → a module that turns a Batch into a scalar. Initial weights come from torch's own stream.
Build = Callable[[Any, Context], nn.Module]
# Which layers are compared when the spec names none; `distill/pairing.py` finds them.
AutoLayers = Literal["stages", "middle stage", "stages and penultimate", "penultimate"]


@dataclass(frozen=True)
class Term:
    """One kind of loss."""

    build: Build
    reads_teacher: bool
    reads_labels: bool = False
    """True when rows without a label are nothing to it."""
    auto_layers: AutoLayers | None = None
    """None when it looks at logits."""
    needs: Literal["maps", "alike", "any"] = "any"
    """Which layers can be a pair: two maps, both maps or both vectors, or whatever there is."""


LOSSES: Registry[Term] = Registry("loss")


class OfLogits(nn.Module):
    """A loss without a state that reads logits and labels."""

    def __init__(self, compute: Compute, params: Any) -> None:
        super().__init__()
        self._compute, self._params = compute, params
        self._moves = isinstance(params, Softened) and isinstance(params.temperature, Ramp)

    def forward(self, batch: Batch) -> Tensor:
        """A scalar, the mean over rows."""
        teacher, student = batch.teacher.logits if batch.teacher else None, batch.student.logits
        params = self._params.at(batch.done) if self._moves else self._params
        if params.of_buckets and batch.teacher is not None and batch.teacher.ids is not None:
            student = bucketed(student, batch.teacher.ids, temperature=params.heat)
        return self._compute(params, student, batch.targets, teacher)


def register(kind: str, *, reads_teacher: bool, reads_labels: bool = False) -> Callable[[Compute], Compute]:
    """Decorator that files a function of logits under its `kind`."""

    def file(compute: Compute) -> Compute:
        LOSSES.register(kind)(Term(lambda params, context: OfLogits(compute, params), reads_teacher, reads_labels))
        return compute

    return file


def register_layered(
    kind: str, *, auto: AutoLayers, needs: Literal["maps", "alike", "any"]
) -> Callable[[Build], Build]:
    """Decorator that files the builder of a loss on layers under its `kind`."""

    def file(build: Build) -> Build:
        LOSSES.register(kind)(Term(build, reads_teacher=True, auto_layers=auto, needs=needs))
        return build

    return file


def teacher_logits(kind: str, teacher: Tensor | None) -> Tensor:
    """The teacher's logits, for a loss that cannot do without."""
    if teacher is None:
        raise ValueError(f"the {kind} loss reads the teacher's logits, and none were given")
    return teacher
