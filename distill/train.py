"""The training loop. Teacher, student, fine-tuning and baseline all go through `fit`."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from operator import mul
from typing import Literal

import torch
from torch import Tensor, nn

from distill.augment import Seen, view
from distill.batches import bounds, fewest_rows
from distill.data import Dataset, unusable
from distill.device import arithmetic
from distill.evaluate import score
from distill.losses import LOSSES, Batch, Objective, Targets
from distill.mixing import mixed, mixes
from distill.optimisation import optimizer, shorten, step_size
from distill.reporter import Reporter
from distill.sampling import balanced_weights, epoch_order
from distill.seeds import reseed
from distill.taps import Outputs, Pair, outputs
from stillhouse.spec import concrete
from stillhouse.spec.errors import JobFailure
from stillhouse.spec.losses import Loss, Ramp, Softened
from stillhouse.spec.states import Phase
from stillhouse.spec.training import Augmentation, EarlyStopping, Schedule, Training


@dataclass(frozen=True)
class Teaching:
    """A teacher at work beside the student."""

    look: Callable[[Tensor, Tensor, int], Outputs] | None
    """(positions in the training split [B], what the student sees [B, …], epoch from 0) → the teacher's logits
    [B, classes], and its layers where losses look at them. None: it is not asked."""
    follow: Callable[[nn.Module], None] | None = None
    """Called with the student after each step, by a teacher that moves with it."""


VIEW_STREAM = "student"
"""Names the random views that come again: those of the plain job, so that with as many views as epochs nothing
changes."""


@dataclass(frozen=True)
class Stage:
    """One stage of training, every value concrete."""

    phase: Phase
    stream: str
    """Names the random streams. Distillation and baseline share one: same batches, views and dropout masks."""
    losses: tuple[Loss, ...]
    epochs: int
    batch_size: int
    optimizer: Literal["adamw", "adam", "sgd"]
    learning_rate: float
    weight_decay: float
    momentum: float
    schedule: Schedule
    warmup_epochs: float
    precision: Literal["fp32", "bf16"]
    augmentation: Augmentation
    seed: int
    early_stopping: EarlyStopping | None
    max_norm: float | None = None
    series: str | None = None
    """Name its series start with; None: the phase's."""
    class_weights: Literal["none", "balanced"] = "none"
    sampling: Literal["uniform", "balanced"] = "uniform"
    pairs: Mapping[str, tuple[Pair, ...]] = field(default_factory=dict)
    """Kind of loss → the layers it compares."""
    freeze: tuple[str, ...] = ()
    """Paths of layers that stay as they are."""
    views: int | None = None
    """Epoch e shows view e mod `views` of each row; None: a new one in every epoch."""


def stage_of(training: Training, *, phase: Phase, stream: str, losses: tuple[Loss, ...]) -> Stage:
    """The stage a resolved `Training` describes."""
    return Stage(
        phase=phase,
        stream=stream,
        losses=losses,
        epochs=concrete(training.epochs),
        batch_size=concrete(training.batch_size),
        optimizer=training.optimizer,
        learning_rate=concrete(training.learning_rate),
        weight_decay=concrete(training.weight_decay),
        momentum=concrete(training.momentum),
        schedule=training.schedule,
        warmup_epochs=training.warmup_epochs,
        precision=concrete(training.precision),
        max_norm=training.max_norm,
        augmentation=training.augmentation,
        seed=concrete(training.seed),
        early_stopping=training.early_stopping,
        class_weights=training.class_weights,
        sampling=training.sampling,
    )


def fit(net: nn.Module, stages: Sequence[Stage], data: Dataset, teaching: Teaching | None, reporter: Reporter) -> int:
    """Train `net` in place through `stages`, all of one phase, and return the epochs run. It ends in eval mode.

    Raises JobFailure `loss_not_finite` or `outputs_not_finite`.
    """
    objectives = [_objective(stage, data) for stage in stages]
    rows, needed = len(data.rows["train"]), max(map(fewest_rows, (net, *objectives)))
    if rows < needed:
        raise unusable("The training split has a single row, and batch norm needs two.")
    if stages[0].batch_size < needed:
        reporter.say("Batch norm needs two rows at a time, so batches have two instead of one.", "warning")
    plans = [bounds(rows, stage.batch_size, at_least=needed) for stage in stages]
    epochs = sum(stage.epochs for stage in stages)
    steps = sum(stage.epochs * len(plan) for stage, plan in zip(stages, plans, strict=True))
    first, rows_per_step = stages[0], rows * epochs / steps
    with reporter.phase(first.phase, epochs=epochs, steps=steps, rows_per_step=rows_per_step, series=first.series):
        run = 0
        for stage, plan, objective in zip(stages, plans, objectives, strict=True):
            reporter.next_stage()
            with frozen(net, stage.freeze):
                run += _fit(net, objective, stage, plan, data, teaching, reporter)
    return run


def _objective(stage: Stage, data: Dataset) -> Objective:
    """The losses of a stage, with fresh projectors and memories where they have some."""
    labels = data.y[data.rows["train"]]
    objective = Objective(stage.losses, pairs=stage.pairs, labels=labels, seed=stage.seed, stream=stage.stream)
    return objective.to(data.x.device)


def _fit(
    net: nn.Module,
    objective: Objective,
    stage: Stage,
    steps: list[tuple[int, int]],
    data: Dataset,
    teaching: Teaching | None,
    reporter: Reporter,
) -> int:
    """One stage. Without early stopping the weights of the last epoch stay: choosing a best epoch is for the
    validation split, and only when asked."""
    device, rows = data.x.device, data.rows["train"]
    labels = data.y[rows]  # int64 [rows]
    labels_here = labels.cpu()
    partial = bool((labels_here < 0).any())
    weights = balanced_weights(labels, len(data.facts.classes)) if stage.class_weights == "balanced" else None
    total, warmup = stage.epochs * len(steps), round(stage.warmup_epochs * len(steps))
    # What losses learn trains beside the student, and never becomes part of it.
    optim = optimizer(net, stage.optimizer, objective, weight_decay=stage.weight_decay, momentum=stage.momentum)
    watched = objective.student_layers()
    drops = any(isinstance(layer, nn.Dropout) for layer in net.modules())
    look, follow = (teaching.look, teaching.follow) if teaching else (None, None)
    best = Best(stage.early_stopping)
    begin(net, stage.freeze)
    for epoch in range(stage.epochs):
        order = epoch_order(labels_here, stage.sampling, stage.seed, stage.stream, epoch).to(device)
        order_rows = rows[order]  # row numbers in the dataset, where `order` has positions in the split
        seen = _view(data, stage, epoch)
        known = (labels_here[order.cpu()] >= 0).cumsum(0).tolist() if partial else None
        sums = Sums(stage, known, begun=epoch * len(steps), total=total)
        for step, (start, stop) in enumerate(steps, start=epoch * len(steps)):
            batch, batch_rows = order[start:stop], order_rows[start:stop]  # [B]
            x = seen(batch, batch_rows)  # float32 [B, …]
            targets = Targets(labels[batch], weights, partial)  # [B]
            if mixes(stage.augmentation):
                x, targets = mixed(x, targets, stage.augmentation, stage.seed, stage.stream, step)
            rate = step_size(step, peak=stage.learning_rate, steps=total, warmup=warmup, schedule=stage.schedule)
            for group in optim.param_groups:
                group["lr"] = rate
            if drops:
                reseed(device, stage.seed, stage.stream, "dropout", step)
            with arithmetic(stage.precision, device):  # losses are outside and stay float32
                student = outputs(net, x, watched)  # logits [B, classes]
            teacher = look(batch, x, epoch) if look else None  # logits [B, classes]
            loss, parts = objective(Batch(student, teacher, targets, batch, step, step / total))
            loss.backward()
            optim.step()
            if stage.max_norm is not None:
                shorten(net, stage.max_norm)
            optim.zero_grad()
            if follow is not None:
                follow(net)
            sums.add(parts, stop - start)
            if reporter.due():
                sums.read(epoch + 1)
                reporter.advance(epoch=epoch + 1, step=step + 1)
        reporter.advance(epoch=epoch + 1, step=step + 1)
        values = {**sums.means(epoch + 1), "learning_rate": rate}
        if len(data.rows["validation"]):
            measured = score(net, data, "validation")
            values |= {"validation_loss": measured.loss, "validation_accuracy": measured.accuracy}
            begin(net, stage.freeze)  # scoring put it in eval mode
        reporter.measured(values)
        if best.enough(net, values.get("validation_loss"), epoch):
            break
    best.restore(net)
    net.eval()
    return epoch + 1


def _view(data: Dataset, stage: Stage, epoch: int) -> Seen:
    """What the networks see in one epoch of a stage, before images are mixed."""
    if stage.views is None:
        return view(data, stage.augmentation, stage.seed, stage.stream, epoch)
    return view(data, stage.augmentation, stage.seed, VIEW_STREAM, epoch % stage.views)


def begin(net: nn.Module, freeze: Sequence[str]) -> None:
    """Train mode, except for the layers that stay as they are: batch norm would go on counting there."""
    net.train()
    for path in freeze:
        net.get_submodule(path).eval()


@contextmanager
def frozen(net: nn.Module, freeze: Sequence[str]) -> Iterator[None]:
    """Within the block, no gradient reaches the weights at these paths."""
    held = [p for path in freeze for p in net.get_submodule(path).parameters() if p.requires_grad]
    try:
        for parameter in held:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in held:
            parameter.requires_grad_(True)


class Sums:
    """The losses of one epoch, kept on the device until somebody reads them: a step never waits for the host."""

    def __init__(self, stage: Stage, labelled: Sequence[int] | None = None, *, begun: int = 0, total: int = 1) -> None:
        """`labelled[i]` of the first i + 1 rows of the epoch have a label; None: all have one. The epoch begins after
        `begun` of the stage's `total` steps."""
        self._stage, self._labelled = stage, labelled
        self._begun, self._total = begun, total
        self._unread: list[Tensor] = []
        self._counts: list[int] = []
        self._values: list[float] = []  # step after step, the losses of each in turn

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
        self._values += values
        self._unread = []

    def means(self, epoch: int) -> dict[str, float]:
        """`loss`, the weighted sum, and `loss_<kind>` of each part: means over the rows of the epoch it reads; and of a
        dial that moves, `weight_<kind>` and `temperature_<kind>` at the last step.

        fsum is exact, so the figures do not depend on how often they were read.
        """
        self.read(epoch)
        losses = self._stage.losses
        columns = [self._values[i :: len(losses)] for i in range(len(losses))]
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
    """Early stopping: the best weights so far and how long ago they were."""

    def __init__(self, rule: EarlyStopping | None) -> None:
        self._rule = rule
        self._loss, self._epoch = math.inf, -1
        self._weights: dict[str, Tensor] | None = None

    def enough(self, net: nn.Module, loss: float | None, epoch: int) -> bool:
        """Note the validation loss of this epoch; True when it has not fallen for `patience` epochs."""
        if self._rule is None or loss is None:
            return False
        if loss < self._loss - self._rule.min_delta:
            self._loss, self._epoch = loss, epoch
            self._weights = {name: value.detach().clone() for name, value in net.state_dict().items()}
        return epoch - self._epoch >= self._rule.patience

    def restore(self, net: nn.Module) -> None:
        """Put the best weights back, if any were kept."""
        if self._weights is not None:
            net.load_state_dict(self._weights)
