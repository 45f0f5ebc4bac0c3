"""A stage under way: all that changes from step to step, so that it can be left and taken up between any two."""

import math
from collections.abc import Sequence
from itertools import accumulate, pairwise
from operator import mul
from typing import Any

import torch
from torch import Tensor, nn

from distill.checkpoints.file import State, under
from distill.checkpoints.parts import contents, moments, pour, remember, streams
from distill.losses import LOSSES, Objective
from distill.optimisation import optimizer
from distill.stages import Stage
from stillhouse.spec.errors import JobFailure
from stillhouse.spec.losses import Loss, Ramp, Softened
from stillhouse.spec.training import EarlyStopping


class Course:
    """The network, what trains it and what trains beside it, and how far that is."""

    def __init__(self, net: nn.Module, objective: Objective, stage: Stage, *, keep_best: bool = False) -> None:
        """`net` with the frozen layers of the stage held still; `keep_best` weights though the stage does not stop
        early."""
        self.net, self.objective, self._stage = net, objective, stage
        self._device = next(net.parameters()).device
        # What losses learn trains beside the student, and never becomes part of it.
        self.optimizer = optimizer(
            net, stage.optimizer, objective, weight_decay=stage.weight_decay, momentum=stage.momentum
        )
        self.best = Best(stage.early_stopping, keep=keep_best)
        self.epoch, self.step = 0, 0
        """Whole epochs and optimizer steps of the stage that are done."""
        self.sums = Sums(stage)
        """Of the epoch that is not whole yet."""
        self._losses: list[float] = []

    def begin_epoch(self, sums: "Sums", counts: Sequence[int]) -> None:
        """Gather the losses of one epoch, of whose steps some may be done: those over `counts` rows."""
        sums.go_on(self._losses, counts)
        self.sums, self._losses = sums, []

    def end_epoch(self) -> None:
        """It is whole."""
        self.epoch += 1
        self.sums = Sums(self._stage)

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """All of it as plain facts and tensors. Nothing is changed."""
        self.sums.read(self.epoch + 1)
        best, weights = self.best.state()
        tensors = {
            **under("net", contents(self.net)),
            **under("objective", contents(self.objective)),
            **under("optimizer", moments(self.optimizer)),
            **under("best", weights),
            **under("streams", streams(self._device)),
            "losses": torch.tensor(self.sums.values or self._losses, dtype=torch.float64),
        }
        return {"epoch": self.epoch, "step": self.step, **best}, tensors

    def load(self, facts: dict[str, Any], state: State) -> None:
        """Go on from there; `net` has its weights by then. Raises Unfit."""
        pour(state.below("objective"), self.objective)
        remember(state.below("optimizer"), self.optimizer)
        self.best.load(facts, state.below("best"))
        self.epoch, self.step = int(facts["epoch"]), int(facts["step"])
        self._losses = state.tensors["losses"].tolist()


class Sums:
    """The losses of one epoch, kept on the device until somebody reads them: a step never waits for the host."""

    def __init__(self, stage: Stage, labelled: Sequence[int] | None = None, *, begun: int = 0, total: int = 1) -> None:
        """`labelled[i]` of the first i + 1 rows of the epoch have a label; None: all have one. The epoch begins after
        `begun` of the stage's `total` steps."""
        self._stage, self._labelled = stage, labelled
        self._begun, self._total = begun, total
        self._unread: list[Tensor] = []
        self._counts: list[int] = []
        self.values: list[float] = []
        """As far as they were read: step after step, the losses of each in turn."""

    def go_on(self, values: Sequence[float], counts: Sequence[int]) -> None:
        """Begin after steps of an earlier attempt: their losses, and the rows of each."""
        self.values, self._counts = list(values), list(counts)

    def add(self, parts: dict[str, Tensor], rows: int) -> None:
        """Keep the parts of one step over `rows` rows."""
        self._unread += parts.values()
        self._counts.append(rows)

    def read(self, epoch: int) -> None:
        """Bring what has gathered to the host, in one transfer. Raises JobFailure `loss_not_finite`."""
        if not self._unread:
            return
        values: list[float] = torch.stack(self._unread).tolist()
        if not all(map(math.isfinite, values)):
            raise self._not_finite(epoch)
        self.values += values
        self._unread = []

    def means(self, epoch: int) -> dict[str, float]:
        """`loss`, the weighted sum, and `loss_<kind>` of each part: means over the rows of the epoch it reads; and of a
        dial that moves, `weight_<kind>` and `temperature_<kind>` at the last step.

        fsum is exact, so the figures do not depend on how often they were read.
        """
        self.read(epoch)
        losses = self._stage.losses
        columns = [self.values[i :: len(losses)] for i in range(len(losses))]
        counts = [self._labelled_counts() if LOSSES[p.kind].reads_labels else self._counts for p in losses]
        means = [math.fsum(map(mul, column, c)) / max(1, sum(c)) for column, c in zip(columns, counts, strict=True)]
        total = math.fsum(map(self._weighted, losses, means, columns, counts))
        parts = {f"loss_{p.kind}": mean for p, mean in zip(losses, means, strict=True)}
        return {"loss": total, **parts, **self._dials()}

    def _weighted(self, loss: Loss, mean: float, column: list[float], counts: list[int]) -> float:
        """The mean of weight · loss over the rows it reads."""
        weight = loss.share
        if not isinstance(weight, Ramp):
            return weight * mean
        weights = [weight.at(self._done(step)) for step in range(len(counts))]
        return math.fsum(map(math.prod, zip(weights, column, counts, strict=True))) / max(1, sum(counts))

    def _dials(self) -> dict[str, float]:
        """Where the moving dials stand at the last step."""
        now = self._done(len(self._counts) - 1)
        losses = self._stage.losses
        dials: list[tuple[str, float | Ramp]] = [(f"weight_{loss.kind}", loss.share) for loss in losses]
        dials += [(f"temperature_{loss.kind}", loss.course) for loss in losses if isinstance(loss, Softened)]
        return {name: dial.at(now) for name, dial in dials if isinstance(dial, Ramp)}

    def _done(self, step: int) -> float:
        """Share of the stage's steps before a step of this epoch."""
        return (self._begun + step) / self._total

    def _labelled_counts(self) -> list[int]:
        """Rows of each step that have a label."""
        if self._labelled is None:
            return self._counts
        ends = [self._labelled[end - 1] for end in accumulate(self._counts)]
        return [end - start for start, end in pairwise([0, *ends])]

    def _not_finite(self, epoch: int) -> JobFailure:
        return JobFailure(
            "loss_not_finite",
            f"The loss became NaN or infinite in epoch {epoch} of phase {self._stage.phase}.",
            hint=f"Lower the learning rate (it is {self._stage.learning_rate:g}), or train in fp32.",
        )


class Best:
    """The best weights so far by the validation loss, and how long ago they were."""

    def __init__(self, rule: EarlyStopping | None, *, keep: bool = False) -> None:
        """`rule` ends the training when they have been the best for long; with it or with `keep` they are kept."""
        self._rule, self._keep = rule, keep or rule is not None
        self._loss, self._epoch = math.inf, -1
        self._last: float | None = None
        self.weights: dict[str, Tensor] = {}
        """By the names of a file of weights; empty when none are kept."""

    def enough(self, net: nn.Module, loss: float | None, epoch: int) -> bool:
        """Note the validation loss of this epoch; True when it has not fallen for `patience` epochs."""
        if loss is None:
            return False
        self._last = loss
        if loss < self._loss - (self._rule.min_delta if self._rule else 0.0):
            self._loss, self._epoch = loss, epoch
            if self._keep:
                self.weights = {name: value.detach().clone() for name, value in net.state_dict().items()}
        return self._rule is not None and epoch - self._epoch >= self._rule.patience

    @property
    def epoch(self) -> int:
        """The epoch of the best weights, from 0; -1 before there are some."""
        return self._epoch

    def restore(self, net: nn.Module) -> None:
        """Put the best weights back, if any were kept."""
        if self.weights:
            net.load_state_dict(self.weights)

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Facts and weights, for a checkpoint."""
        loss = self._loss if self._epoch >= 0 else None
        facts = {"best_loss": loss, "best_epoch": self._epoch, "validation_loss": self._last}
        return {**facts, "is_best": self._last is not None and self._last == self._loss}, self.weights

    def load(self, facts: dict[str, Any], weights: dict[str, Tensor]) -> None:
        """What `state` gave."""
        self._loss = math.inf if facts["best_loss"] is None else float(facts["best_loss"])
        self._epoch, self._last, self.weights = int(facts["best_epoch"]), facts["validation_loss"], weights
