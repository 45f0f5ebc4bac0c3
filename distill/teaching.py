"""How a teacher speaks in a stage: from outputs worked out beforehand, or live, looking at what the student sees."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from distill.augment import moves
from distill.data import HELD_OUT, Dataset
from distill.device import arithmetic
from distill.ema import Ema
from distill.evaluate import Score, score_of
from distill.losses import needs_teacher
from distill.mixing import mixes
from distill.model import digest_of
from distill.reporter import Reporter
from distill.stages import Stage
from distill.taps import Outputs, outputs
from distill.teacher import Teacher
from distill.teacher_outputs import Shelf, Voice, Wish, outputs_of
from distill.teacher_outputs.layout import Layout
from distill.train import Teaching
from stillhouse.spec.facts import Split
from stillhouse.spec.losses import Softened


@dataclass(frozen=True)
class Keeping:
    """Which outputs are kept, and where."""

    views: int | Literal["live"]
    """Of each row, where images are augmented."""
    top_k: int | None = None
    shelf: Shelf | None = None
    """None: in memory, for this job alone."""
    dataset: Path | None = None
    dataset_sha256: str | None = None
    """Of that file, when somebody has worked it out already."""

    def sha256(self) -> str:
        """Digest of the dataset."""
        if self.dataset_sha256 is not None:
            return self.dataset_sha256
        if self.dataset is None:
            raise ValueError("outputs are kept under the digest of the data, and no file was named")
        return digest_of(self.dataset)


def teachings(
    teacher: Teacher, stages: Sequence[Stage], data: Dataset, keeping: Keeping, reporter: Reporter
) -> list[Teaching | None]:
    """For each stage its teacher, None where no loss reads one. What can be worked out beforehand is, once for all."""
    readers = [stage for stage in stages if needs_teacher(stage.losses)]
    if not readers:
        reporter.say("No loss of this job reads the teacher: it is only compared with the student.", "warning")
        return [None] * len(stages)
    kept = [stage for stage in readers if keeping.views != "live" and _of_outputs(stage)]
    reading: Callable[[Tensor, Tensor, int], Outputs] | None = None
    if kept:
        reading = _reading(teacher, kept, data, keeping, reporter)
    if len(kept) < len(readers):
        reporter.say(f"{_why_live(readers, keeping)}, so the teacher works along on the very views the student sees.")
    return [
        None
        if stage not in readers
        else Teaching(reading)
        if reading is not None and stage in kept
        else _asked_live(teacher.net, stage)
        for stage in stages
    ]


def measured(teacher: Teacher, data: Dataset, keeping: Keeping, reporter: Reporter) -> dict[Split, Score]:
    """How good a teacher is on the splits nothing is trained on, as far as they have rows. One that came in files may
    have been asked by an earlier job; for one that was trained here nothing is kept."""
    count = len(data.held_out)
    shelf = None if teacher.trained else keeping.shelf
    kept = outputs_of(
        Wish(teacher, None, Layout(1, count, len(data.facts.classes))),
        data,
        cache(keeping.sha256),
        shelf,
        reporter,
    )
    logits = kept.of(torch.arange(count, device=data.x.device), 0).logits
    found: dict[Split, Score] = {}
    begin = 0
    for split in HELD_OUT:
        if rows := len(data.rows[split]):
            found[split] = score_of(logits[begin : begin + rows], data, split)
        begin += rows
    return found


def live(net: nn.Module, stage: Stage) -> Teaching:
    """A teacher that looks at each batch as the student does, in one piece."""
    layers = _layers(stage)

    @torch.no_grad()
    def look(batch: Tensor, x: Tensor, epoch: int) -> Outputs:
        with arithmetic(stage.precision, x.device):
            return outputs(net, x, layers)

    return Teaching(look)


def moving(average: Ema, stage: Stage) -> Teaching:
    """The average of the student's own weights as its teacher. It follows through stages that do not ask it too."""
    look = live(average.net, stage).look if needs_teacher(stage.losses) else None
    return Teaching(look, average)


def _asked_live(net: nn.Module, stage: Stage) -> Teaching:
    """A teacher whose outputs could be kept: asked in the same way, it gives the same bits."""
    if _layers(stage):
        return live(net, stage)
    voice = Voice(net, precision=stage.precision)
    return Teaching(lambda batch, x, epoch: voice.of(x))


def _reading(
    teacher: Teacher, stages: Sequence[Stage], data: Dataset, keeping: Keeping, reporter: Reporter
) -> Callable[[Tensor, Tensor, int], Outputs]:
    """A teacher that has been asked before. All stages have the same views: the augmentation is the job's."""
    assert keeping.views != "live"
    augmented = moves(stages[0].augmentation)
    views = keeping.views if augmented else 1
    layout = Layout(views, len(data.rows["train"]), len(data.facts.classes), keeping.top_k)
    wish = Wish(teacher, stages[0], layout, _heat(stages) if keeping.top_k is not None else None)
    if augmented:
        reporter.say(
            f"The teacher's outputs are worked out once for {views} random views of each image; epoch e shows view "
            f"e mod {views}, to the baseline too."
        )
    kept = outputs_of(wish, data, cache(keeping.sha256), keeping.shelf, reporter)
    return lambda batch, x, epoch: kept.of(batch, epoch % views)


def _heat(stages: Sequence[Stage]) -> float:
    """The one temperature at which losses read buckets."""
    return next(loss.heat for stage in stages for loss in stage.losses if isinstance(loss, Softened))


def _of_outputs(stage: Stage) -> bool:
    """True when outputs on views known beforehand are all that is asked of the teacher."""
    return not _layers(stage) and not mixes(stage.augmentation)


def _why_live(readers: Sequence[Stage], keeping: Keeping) -> str:
    if any(map(_layers, readers)):
        return "Losses look at its layers"
    if mixes(readers[0].augmentation):
        return "Rows are mixed within a batch"
    return "Images are augmented" if moves(readers[0].augmentation) else "It was asked for live"


def _layers(stage: Stage) -> tuple[str, ...]:
    return tuple(dict.fromkeys(pair.teacher.path for pairs in stage.pairs.values() for pair in pairs))
