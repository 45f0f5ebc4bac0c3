"""The training loop. Teacher, student, fine-tuning and baseline all go through `fit`."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass

from torch import Tensor, nn

from distill.augment import Seen, view
from distill.batches import bounds, fewest_rows
from distill.course import Course, Sums
from distill.data import Dataset, unusable
from distill.device import arithmetic
from distill.ema import Ema
from distill.evaluate import score
from distill.gate import beats
from distill.lesson import Lesson
from distill.losses import Batch, Objective, Targets
from distill.mixing import mixed, mixes
from distill.optimisation import shorten, step_size
from distill.reporter import Reporter
from distill.sampling import balanced_weights, epoch_order
from distill.seeds import reseed
from distill.stages import VIEW_STREAM, Stage
from distill.taps import Outputs, outputs


@dataclass(frozen=True)
class Teaching:
    """A teacher at work beside the student."""

    look: Callable[[Tensor, Tensor, int], Outputs] | None
    """(positions in the training split [B], what the student sees [B, …], epoch from 0) → the teacher's logits
    [B, classes], and its layers where losses look at them. None: it is not asked."""
    average: Ema | None = None
    """Of the student's weights: it follows after each step."""


def fit(
    net: nn.Module,
    stages: Sequence[Stage],
    data: Dataset,
    teaching: Teaching | None,
    reporter: Reporter,
    lesson: Lesson | None = None,
) -> int:
    """Train `net` in place through `stages`, all of one phase, and return the epochs run. It ends in eval mode.

    A `lesson` that an earlier attempt has ended is recalled, one that it has begun is gone on with. Raises JobFailure
    `loss_not_finite` or `outputs_not_finite`.
    """
    lesson = lesson or Lesson.alone(reporter, data.x.device)
    if (recalled := lesson.recalled(net)) is not None:
        return recalled
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
        begin, run = lesson.begins_at
        for position in range(begin, len(stages)):
            stage = stages[position]
            reporter.next_stage()
            with frozen(net, stage.freeze):
                course = Course(net, objectives[position], stage, keep_best=lesson.keeps_best or stage.keep == "better")
                lesson.take_up(course)
                lesson.watch(course, stage=position, run=run)
                _fit(course, stage, plans[position], data, teaching, reporter, lesson)
            run += course.epoch
            if lesson.ends():
                break
        net.eval()
        lesson.over(net, epochs=run, of=epochs)
    return run


def _objective(stage: Stage, data: Dataset) -> Objective:
    """The losses of a stage, with fresh projectors and memories where they have some."""
    labels = data.y[data.rows["train"]]
    objective = Objective(stage.losses, pairs=stage.pairs, labels=labels, seed=stage.seed, stream=stage.stream)
    return objective.to(data.x.device)


def _fit(
    course: Course,
    stage: Stage,
    steps: list[tuple[int, int]],
    data: Dataset,
    teaching: Teaching | None,
    reporter: Reporter,
    lesson: Lesson,
) -> None:
    """One stage. Without early stopping the weights of the last epoch stay, or better ones where the stage keeps them:
    choosing an epoch is for the validation split, and only when asked."""
    net, objective, optim = course.net, course.objective, course.optimizer
    device, rows = data.x.device, data.rows["train"]
    labels = data.y[rows]  # int64 [rows]
    labels_here = labels.cpu()
    partial = bool((labels_here < 0).any())
    weights = balanced_weights(labels, len(data.facts.classes)) if stage.class_weights == "balanced" else None
    total, rate_of = stage.epochs * len(steps), _rates(stage, len(steps))
    watched = objective.student_layers()
    drops = any(isinstance(layer, nn.Dropout) for layer in net.modules())
    look, average = (teaching.look, teaching.average) if teaching else (None, None)
    begin(net, stage.freeze)
    while course.epoch < stage.epochs and not (course.epoch and lesson.ends()):
        epoch, begun = course.epoch, course.epoch * len(steps)
        order = epoch_order(labels_here, stage.sampling, stage.seed, stage.stream, epoch).to(device)
        order_rows = rows[order]  # row numbers in the dataset, where `order` has positions in the split
        seen = _view(data, stage, epoch)
        known = (labels_here[order.cpu()] >= 0).cumsum(0).tolist() if partial else None
        done = course.step - begun
        sums = Sums(stage, known, begun=begun, total=total)
        course.begin_epoch(sums, [stop - start for start, stop in steps[:done]])
        for step, (start, stop) in enumerate(steps[done:], start=course.step):
            batch, batch_rows = order[start:stop], order_rows[start:stop]  # [B]
            x = seen(batch, batch_rows)  # float32 [B, …]
            targets = Targets(labels[batch], weights, partial)  # [B]
            if mixes(stage.augmentation):
                x, targets = mixed(x, targets, stage.augmentation, stage.seed, stage.stream, step)
            rate = rate_of(step)
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
            if average is not None:
                average.follow(net)
            sums.add(parts, stop - start)
            course.step = step + 1
            if reporter.due():
                sums.read(epoch + 1)
                reporter.advance(epoch=epoch + 1, step=course.step)
                if lesson.ends(epoch_begun=True):
                    break
        reporter.advance(epoch=epoch + 1, step=course.step)
        values = {**sums.means(epoch + 1), "learning_rate": rate_of(course.step - 1)}
        if len(data.rows["validation"]):
            measured = score(net, data, "validation", between=reporter.breathe)
            values |= {"validation_loss": measured.loss, "validation_accuracy": measured.accuracy}
            begin(net, stage.freeze)  # scoring put it in eval mode
        reporter.measured(values)
        course.end_epoch()
        if course.best.enough(net, values.get("validation_loss"), epoch):
            break
    if stage.early_stopping is not None or lesson.ends():
        course.best.restore(net)
    elif stage.keep == "better":
        _keep_the_better(course, data, reporter, lesson)


def _keep_the_better(course: Course, data: Dataset, reporter: Reporter, lesson: Lesson) -> None:
    """Put the weights of the least validation loss back where they are better than the last by more than chance."""
    net, best = course.net, course.best
    if not best.weights or best.epoch == course.epoch - 1:
        return
    last = score(net, data, "validation", between=reporter.breathe)
    earlier = deepcopy(net)  # a checkpoint written meanwhile holds the network, and that must still be the last
    best.restore(earlier)
    found = score(earlier, data, "validation", between=reporter.breathe)
    if beats(found, last, data.y[data.rows["validation"]]):
        best.restore(net)
        lesson.kept(f"epoch {best.epoch + 1} of {course.epoch}", found, last)


def _rates(stage: Stage, steps: int) -> Callable[[int], float]:
    """The step size of each of the stage's optimizer steps; an epoch has `steps`."""
    total, warmup = stage.epochs * steps, round(stage.warmup_epochs * steps)
    return lambda step: step_size(step, peak=stage.learning_rate, steps=total, warmup=warmup, schedule=stage.schedule)


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
