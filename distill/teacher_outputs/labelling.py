"""From a teacher to its outputs over the training data: found where an earlier job has left them, or made."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from distill.augment import Seen, view
from distill.data import Dataset
from distill.evaluate import not_finite
from distill.mapped import Mapping
from distill.reporter import Reporter
from distill.stages import VIEW_STREAM, Stage
from distill.teacher import Teacher
from distill.teacher_outputs.file import Maker, open_whole
from distill.teacher_outputs.kept import Kept
from distill.teacher_outputs.key import key_of
from distill.teacher_outputs.layout import Layout
from distill.teacher_outputs.shelf import Shelf
from distill.teacher_outputs.voice import Voice
from stillhouse.spec.errors import JobFailure
from stillhouse.spec.events import OutputsMade, OutputsWanted
from stillhouse.spec.states import Phase

Chunk = dict[str, Tensor]


@dataclass(frozen=True)
class Wish:
    """Which outputs: those of a teacher for the views of a stage, all of them or the largest `top_k` at a
    temperature."""

    teacher: Teacher
    stage: Stage | None
    """None: the rows held out, as they are."""
    layout: Layout
    temperature: float | None = None

    def voice(self) -> Voice:
        """The teacher, to be asked. What is held out is for measuring, which is done in float32."""
        precision = "fp32" if self.stage is None else self.stage.precision
        heat = self.temperature or 1.0
        return Voice(self.teacher.net, top_k=self.layout.top_k, temperature=heat, precision=precision)

    def rows(self, data: Dataset) -> Tensor:
        """Row numbers, int64 [layout.rows]."""
        return data.held_out if self.stage is None else data.rows["train"]

    def seen(self, data: Dataset, number: int) -> Seen:
        """What the teacher is shown in view `number`."""
        if self.stage is None:
            return lambda batch, rows: data.inputs(rows)
        return view(data, self.stage.augmentation, self.stage.seed, VIEW_STREAM, number)


def outputs_of(
    wish: Wish, data: Dataset, dataset_sha256: Callable[[], str], shelf: Shelf | None, report: Reporter
) -> Kept:
    """The outputs, each training row in each view. Without a shelf they are made in memory.

    Raises JobFailure `outputs_not_finite`.
    """
    steps = wish.layout.views * len(data.cut(wish.rows(data)))
    # A look at the rows held out is no phase of its own: they are few.
    with nullcontext() if wish.stage is None else report.phase(Phase.LABELLING, steps=steps):
        if shelf is None:
            return _in_memory(wish, data, report).to(data.x.device)
        sample = data.inputs(data.rows["train"][:1])
        key = key_of(dataset_sha256(), wish.teacher.fingerprint, wish.stage, wish.layout, wish.temperature, sample)
        return _from_shelf(wish, key, data, shelf, report).to(data.x.device)


def _from_shelf(wish: Wish, key: str, data: Dataset, shelf: Shelf, report: Reporter) -> Kept:
    layout = wish.layout
    wanted = OutputsWanted(
        key=key,
        teacher=wish.teacher.described,
        part="train" if wish.stage is not None else "held_out",
        views=layout.views,
        top_k=layout.top_k,
        rows=layout.rows,
        bytes=layout.nbytes,
    )
    place = shelf.ask(wanted)
    while place.ready:
        if (mapping := open_whole(Path(place.path), key, layout)) is not None:
            if wish.stage is not None:
                report.say("An earlier job has run this teacher over this data: its outputs are used again.")
            return Kept.mapped(mapping, layout)
        report.say("The outputs an earlier job has kept are damaged or gone: they are made again.", "warning")
        place = shelf.ask(wanted.model_copy(update={"damaged": True}))
    made = _on_disk(wish, key, Path(place.path), data, report)
    shelf.made(OutputsMade(key=key, kept=made is not None))
    if made is not None:
        return Kept.mapped(made, layout)
    report.say("The teacher's outputs could not be kept for later jobs: the disk refused.", "warning")
    return _in_memory(wish, data, report)


def _on_disk(wish: Wish, key: str, path: Path, data: Dataset, report: Reporter) -> Mapping | None:
    """The file made at `path`, mapped; None when the disk refuses."""
    if (mapping := open_whole(path, key, wish.layout)) is not None:
        return mapping  # whoever made it died before saying so
    try:
        with Maker(path, key, wish.layout) as maker:
            if maker.done:
                report.say(f"Labelling goes on after {maker.done:,} of {wish.layout.total:,} rows.")
            try:
                for chunk in _chunks(wish, data, maker.done, report):
                    maker.add(chunk)
                mapping = maker.so_far()
                maker.finish()
            except (JobFailure, OSError):
                maker.drop()
                raise
            return mapping
    except OSError:
        return None


def _in_memory(wish: Wish, data: Dataset, report: Reporter) -> Kept:
    # One place for all, as in `measure`: small tensors kept from each chunk would make the heap grow.
    kept, done = wish.layout.empty(), 0
    for chunk in _chunks(wish, data, 0, report):
        rows = 0
        for name, part in chunk.items():
            kept[name][done : done + len(part)] = part
            rows = len(part)
        done += rows
    return Kept(wish.layout, kept)


def _chunks(wish: Wish, data: Dataset, done: int, report: Reporter) -> Iterator[Chunk]:
    """What the teacher says, row after row and view after view, after the first `done` rows of them."""
    voice, layout = wish.voice(), wish.layout
    wish.teacher.net.eval()
    parts, step, at = data.cut(wish.rows(data)), 0, 0
    positions = torch.split(torch.arange(layout.rows, device=data.x.device), len(parts[0]))
    for number in range(layout.views):
        if at + layout.rows <= done:
            at, step = at + layout.rows, step + len(parts)
            continue
        seen = wish.seen(data, number)
        for batch, rows in zip(positions, parts, strict=True):
            step, at = step + 1, at + len(rows)
            if at <= done:
                continue
            new = min(len(rows), at - done)  # a file may end within what is a chunk here
            said = voice.of(seen(batch[-new:], rows[-new:]))
            if not said.logits.isfinite().all():
                split = "rows held out" if wish.stage is None else "training split"
                raise not_finite(f"on the {split}: the teacher cannot teach")
            yield layout.packed(said)
            if wish.stage is not None:
                report.advance(step=step)
            else:
                report.breathe()
