"""One distillation, from top to bottom."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from distill.choice import choose
from distill.data import Dataset, measure, read_dataset, unusable
from distill.device import give_back, heap_kept, memory_guard, pick, repeatable
from distill.ema import Ema
from distill.evaluate import Score, score
from distill.gate import let_teach
from distill.losses import needs_teacher
from distill.pairing import pair_layers, sentence
from distill.publish import publish
from distill.raising import Nursery, ancestor, entrants, graduate
from distill.reporter import Reporter
from distill.stages import Pairs, check_frozen, stages_of, without_teacher
from distill.students.shrink import inherit, recalibrate
from distill.teacher import Teacher, introduce, judged_on, of_model
from distill.teacher_outputs import Shelf
from distill.teaching import Keeping, measured, moving, teachings
from distill.train import Teaching, fit
from stillhouse.spec import AUTO, JobSpec
from stillhouse.spec.errors import JobFailure
from stillhouse.spec.events import Finished, TrainerEvent
from stillhouse.spec.facts import Split
from stillhouse.spec.states import Phase
from stillhouse.spec.students import Architecture, Shrink

_RECALIBRATION_ROWS = 1024


@dataclass(frozen=True)
class RunIO:
    """Where a run reads and writes."""

    dataset: Path
    """A stored dataset file."""
    teacher: Path | None
    """Folder of the teacher (model.safetensors, config.json), when the spec names one; of an ensemble, the folder of
    such folders, each named by its member's position from 0."""
    output: Path
    """An empty folder for the files."""
    shelf: Shelf | None = None
    """Where the teacher's outputs are kept for later jobs, such as `FolderShelf(folder)`; None: keep none."""
    dataset_sha256: str | None = None
    """SHA-256 of the dataset's file, when it is known: outputs are kept under it."""
    threads: int | None = None
    """CPU threads. The same number gives the same bits; None: torch's own choice."""


def run(spec: JobSpec, io: RunIO, report: Callable[[TrainerEvent], None]) -> Finished:
    """Distil as the resolved `spec` says, leave the files in `io.output`, and return what was found.

    `report` gets every event but the last, which is the return value. It is called from this thread, about once a
    second. Raises JobFailure with one of `FAILURE_CODES` when the job cannot go on.
    """
    device = pick(spec.resources)
    with memory_guard(), heap_kept(), repeatable(device, io.threads):
        return _run(spec, io, device, Reporter(report))


def _run(spec: JobSpec, io: RunIO, device: torch.device, reporter: Reporter) -> Finished:
    with reporter.phase(Phase.PREPARING):
        data = read_dataset(io.dataset)
        _refuse_empty_splits(data)
        statistics = measure(data)
        data = data.to(device)
        _introduce_data(data, reporter)
        reporter.advance(step=1)
    nursery = Nursery(spec, data, statistics, reporter)
    architecture, chosen = choose(spec.student, data, statistics, nursery.fresh, reporter)
    student = nursery.fresh(architecture)
    check_frozen(spec, student)

    # 1. The teacher: trained here on the labels, loaded, several of them, or the student itself, earlier or averaged.
    # First, which of its layers the losses look at: what does not fit is found before anything is spent.
    candidates = entrants(spec, nursery, io.teacher)
    pairs = _pairs(spec, student, candidates[0].net if candidates else student, data, reporter)
    stages = stages_of(spec, pairs)
    average = Ema(student, spec.teacher.ema.decay) if spec.teacher.ema is not None else None
    held_out: dict[Split, Score] = {}
    if average is None:
        if spec.teacher.previous is not None:
            net = ancestor(spec.teacher.previous.generations, architecture, stages, nursery)
            teacher = of_model(nursery.model("teacher", net, architecture), trained=True)
        else:
            teacher = graduate(spec, nursery, candidates)
        held_out = measured(teacher, data, _keeping(spec, io), reporter)
        introduce(teacher, held_out[judged_on(data)], data, reporter)
        if isinstance(spec.student, Shrink):
            _start_from(teacher, student, architecture, data, reporter)

    # 2. The same student without a teacher: same first weights, batches, steps and step sizes. A teacher it beats has
    # nothing to say.
    models = []
    if spec.evaluation.baseline:
        # Of a shrunk student too the baseline starts at random: layers of the teacher are a lesson as well.
        baseline = nursery.fresh(architecture)
        nursery.fit(baseline, without_teacher(stages, data))
        models.append(nursery.model("baseline", baseline, architecture))
        if held_out and not spec.teacher.of_itself and spec.evaluation.teacher_gate == "on":
            split = judged_on(data)
            alone = score(baseline, data, split)
            let_teach(held_out[split], alone, data.y[data.rows[split]], split=split)

    # 3. The teacher's outputs on the training split: computed once, or live when every epoch shows other views, the
    # losses look inside it, or it moves along.
    lessons: list[Teaching | None]
    if average is not None:
        lessons = [moving(average, stage) for stage in stages]
    else:
        lessons = teachings(teacher, stages, data, _keeping(spec, io), reporter)
    give_back()

    # 4. The student.
    for stage, taught in zip(stages, lessons, strict=True):
        # Where nothing reads the teacher there is nothing to learn from rows without a label.
        seen = data if needs_teacher(stage.losses) else data.labelled()
        nursery.epochs[stage.series or stage.phase] = fit(student, [stage], seen, taught, reporter)
    models.insert(0, nursery.model("student", student, architecture))
    if average is not None:
        teacher = of_model(nursery.model("teacher", average.net, architecture), trained=True)

    # 5. Measured on the rows none of them was trained on.
    with reporter.phase(Phase.EVALUATING, steps=len(models) + 1):
        scores = [held_out.get("test") or score(teacher.net, data, "test")]
        for step, model in enumerate(models, start=2):
            scores.append(score(model.net, data, "test"))
            reporter.advance(step=step)

    # 6. The files and the report.
    give_back()
    return publish(spec, data, teacher, models, scores, chosen, nursery.epochs, stages, io.output, reporter)


def _keeping(spec: JobSpec, io: RunIO) -> Keeping:
    wanted = spec.teacher_outputs
    if wanted.views == AUTO:
        raise ValueError("this spec is not resolved: teacher_outputs.views is still auto")
    return Keeping(wanted.views, wanted.top_k, io.shelf, io.dataset, io.dataset_sha256)


def _refuse_empty_splits(data: Dataset) -> None:
    for split in ("train", "test"):
        if not len(data.rows[split]):
            raise unusable(f"The {split} split of the dataset is empty.")


def _introduce_data(data: Dataset, reporter: Reporter) -> None:
    rows = {split: f"{len(index):,}" for split, index in data.rows.items()}
    reporter.say(
        f"Read {rows['train']} training, {rows['validation']} validation and {rows['test']} test rows "
        f"of {len(data.facts.classes)} classes; training on {data.x.device.type}."
    )
    if data.facts.unlabelled:
        reporter.say(
            f"{data.facts.unlabelled:,} training rows have no label: losses that read the teacher alone use them."
        )


def _pairs(spec: JobSpec, student: nn.Module, teacher: nn.Module, data: Dataset, reporter: Reporter) -> list[Pairs]:
    """For each stage the layers its losses compare, said in the log."""
    rows = data.inputs(data.rows["train"][:2])
    out: list[Pairs] = []
    for stage in spec.plan():
        pairs = pair_layers(stage.losses, student, teacher, rows)
        for kind, compared in pairs.items():
            reporter.say(sentence(kind, compared))
        out.append(pairs)
    return out


def _start_from(
    teacher: Teacher, student: nn.Module, architecture: Architecture, data: Dataset, reporter: Reporter
) -> None:
    """Give a shrunk student the teacher's layers, as far as they go."""
    hint = "Name an architecture as the student."
    if teacher.architecture is None:
        detail = "The teacher cannot be shrunk: nothing is known of its layers."
        raise JobFailure("teacher_unusable", detail, hint=hint)
    try:
        taken, total = inherit(student, teacher.net, architecture, teacher.architecture)
    except ValueError as error:
        raise JobFailure("teacher_unusable", f"The teacher cannot be shrunk: {error}.", hint=hint) from error
    if len(data.rows["train"]) > 1:
        recalibrate(student, data.inputs(data.rows["train"][:_RECALIBRATION_ROWS]))
    reporter.say(f"The student starts from the teacher: {taken:,} of {total:,} parameters are taken over.")
