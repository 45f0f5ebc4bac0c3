"""Losses that compare one layer of the student with one of the teacher, summed over the pairs of layers."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from distill.losses.registry import Batch
from distill.taps import Pair


class OverPairs(nn.Module):
    """Σ over pairs of what a module of its own makes of (student's features [B, …], teacher's [B, …])."""

    def __init__(self, pairs: Sequence[Pair], modules: Sequence[nn.Module]) -> None:
        super().__init__()
        self._pairs = tuple(pairs)
        self.comparisons = nn.ModuleList(modules)

    def forward(self, batch: Batch) -> Tensor:
        """A scalar."""
        values = [compare(*features(pair, batch)) for pair, compare in zip(self._pairs, self.comparisons, strict=True)]
        return torch.stack(values).sum()


class Comparison(nn.Module):
    """A function of (student's features, teacher's features) without a state, as a module."""

    def __init__(self, compare: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self._compare = compare

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """A scalar."""
        return self._compare(student, teacher)


def over_pairs(pairs: Sequence[Pair], compare: Callable[[Tensor, Tensor], Tensor]) -> OverPairs:
    """The sum over pairs of a function without a state."""
    return OverPairs(pairs, [Comparison(compare) for _ in pairs])


def features(pair: Pair, batch: Batch) -> tuple[Tensor, Tensor]:
    """The student's features and the teacher's, these without gradient."""
    if batch.teacher is None:
        raise ValueError("a loss on layers reads the teacher's, and none were given")
    return batch.student.features[pair.student.path], batch.teacher.features[pair.teacher.path].detach()
