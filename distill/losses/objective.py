"""The weighted sum of the losses of one stage, with all that they learn."""

from collections.abc import Mapping, Sequence
from functools import partial, reduce
from operator import add

import torch
from torch import Tensor, nn

from distill.losses.registry import LOSSES, Batch, Context
from distill.seeds import derive, generator
from distill.taps import Pair
from stillhouse.spec.losses import Loss, at


class Objective(nn.Module):
    """Σ weight · loss. Its parameters are those of projectors and the like: none of them belongs to the student."""

    def __init__(
        self,
        losses: Sequence[Loss],
        *,
        pairs: Mapping[str, tuple[Pair, ...]] | None = None,
        labels: Tensor | None = None,
        seed: int = 0,
        stream: str = "student",
    ) -> None:
        """`pairs` by kind of loss; `labels` of the training split, int64 [rows]. Two objectives of equal arguments
        start from the same weights, and the caller's random numbers are left alone."""
        super().__init__()
        self.pairs = {loss.kind: (pairs or {}).get(loss.kind, ()) for loss in losses}
        rows = torch.empty(0, dtype=torch.int64) if labels is None else labels.cpu()
        self._weights = {loss.kind: loss.share for loss in losses}
        self.terms = nn.ModuleDict()
        with torch.random.fork_rng(devices=[]):
            for loss in losses:
                torch.default_generator.manual_seed(derive(seed, stream, "loss", loss.kind))
                context = Context(self.pairs[loss.kind], rows, partial(generator, seed, stream, "loss", loss.kind))
                self.terms[loss.kind] = LOSSES[loss.kind].build(loss, context)

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum, and each loss unweighted and detached by its kind: scalars, means over the rows."""
        values = {kind: term(batch) for kind, term in self.terms.items()}
        total = reduce(add, (at(weight, batch.done) * values[kind] for kind, weight in self._weights.items()))
        return total, {kind: value.detach() for kind, value in values.items()}

    def student_layers(self) -> tuple[str, ...]:
        """Paths of the student's layers that are compared, each once."""
        return tuple(dict.fromkeys(pair.student.path for pairs in self.pairs.values() for pair in pairs))

    def teacher_layers(self) -> tuple[str, ...]:
        """The same of the teacher."""
        return tuple(dict.fromkeys(pair.teacher.path for pairs in self.pairs.values() for pair in pairs))


def needs_teacher(losses: Sequence[Loss]) -> bool:
    """True when any of the losses reads the teacher's outputs."""
    return any(LOSSES[params.kind].reads_teacher for params in losses)
