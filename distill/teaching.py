"""How a teacher speaks in a stage: from outputs worked out beforehand, or live, looking at what the student sees."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from distill import labels
from distill.augment import moves
from distill.data import Dataset
from distill.ema import Ema
from distill.losses import needs_teacher
from distill.reporter import Reporter
from distill.taps import Outputs, outputs
from distill.teacher import Teacher
from distill.train import Stage, Teaching
from stillhouse.spec.states import Phase


def teachings(
    teacher: Teacher, stages: Sequence[Stage], data: Dataset, dataset: Path, cache: Path | None, reporter: Reporter
) -> list[Teaching | None]:
    """For each stage its teacher, None where no loss reads one. What can be worked out beforehand is, once for all."""
    readers = [stage for stage in stages if needs_teacher(stage.losses)]
    if not readers:
        reporter.say("No loss of this job reads the teacher: it is only compared with the student.", "warning")
        return [None] * len(stages)
    logits: Tensor | None = None
    if any(_still(stage) for stage in readers):
        with reporter.phase(Phase.LABELLING, steps=len(data.chunks("train"))):
            logits = _logits(teacher, data, dataset, cache, reporter)
    if not all(_still(stage) for stage in readers):
        why = "Losses look at its layers" if any(map(_layers, readers)) else "Images are augmented"
        reporter.say(f"{why}, so the teacher works along on the very views the student sees.")
    return [_teaching(teacher.net, stage, logits) if stage in readers else None for stage in stages]


def live(net: nn.Module, stage: Stage) -> Teaching:
    """A teacher that looks at each batch as the student does."""
    layers = _layers(stage)
    return Teaching(torch.no_grad()(lambda batch, x, epoch: outputs(net, x, layers)))


def moving(average: Ema, stage: Stage) -> Teaching:
    """The average of the student's own weights as its teacher. It follows through stages that do not ask it too."""
    look = live(average.net, stage).look if needs_teacher(stage.losses) else None
    return Teaching(look, average.follow)


def _teaching(net: nn.Module, stage: Stage, logits: Tensor | None) -> Teaching:
    if logits is None or not _still(stage):
        return live(net, stage)
    kept = logits
    return Teaching(lambda batch, x, epoch: Outputs(kept[batch]))


def _still(stage: Stage) -> bool:
    """True when the teacher's outputs are the same in every epoch, and its logits all that is asked of it."""
    return not _layers(stage) and not moves(stage.augmentation)


def _layers(stage: Stage) -> tuple[str, ...]:
    return tuple(dict.fromkeys(pair.teacher.path for pairs in stage.pairs.values() for pair in pairs))


def _logits(teacher: Teacher, data: Dataset, dataset: Path, cache: Path | None, reporter: Reporter) -> Tensor:
    """The teacher's logits [train rows, classes], from the cache where an earlier job has left them."""
    if cache is None:
        return labels.teacher_logits(teacher.net, data, reporter)
    shape = (len(data.rows["train"]), len(data.facts.classes))
    key = labels.cache_key(dataset, teacher.fingerprint, data.x.device)
    if (found := labels.read_cached(cache, key, shape)) is not None:
        reporter.say("An earlier job has run this teacher over this data: its outputs are used again.")
        return found.to(data.x.device)
    logits = labels.teacher_logits(teacher.net, data, reporter)
    if not labels.keep(cache, key, logits):
        reporter.say("The teacher's outputs could not be kept for later jobs: the disk refused.", "warning")
    return logits
