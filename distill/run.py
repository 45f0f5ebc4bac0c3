"""One distillation, from top to bottom."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from distill.checkpoints import Checkpoints, Journal, Prints, Unfit
from distill.choice import choose
from distill.data import Dataset, measure, read_dataset, unusable
from distill.device import bits_depend_on, give_back, has_bf16, heap_kept, memory_guard, pick, repeatable
from distill.ema import Ema
from distill.evaluate import Score, score
from distill.export.latencies import Latencies
from distill.gate import let_teach
from distill.hub import PUBLIC, Hub
from distill.pairing import pair_layers, sentence
from distill.publish import publish
from distill.raising import Entrant, Nursery, ancestor, entrants, graduate
from distill.reporter import INTERVAL, Reporter
from distill.stages import Pairs, check_frozen, stages_of, without_teacher
from distill.students.shrink import inherit, recalibrate
from distill.teacher import Teacher, introduce, judged_on, of_model
from distill.teacher_outputs import Shelf
from distill.teaching import Keeping, measured, moving, teachings
from distill.train import Teaching
from stillhouse import __version__
from stillhouse.spec import AUTO, JobSpec
from stillhouse.spec.errors import JobFailure
from stillhouse.spec.events import Finished, Resumed, TrainerEvent, Wish
from stillhouse.spec.facts import Split
from stillhouse.spec.losses import Layered
from stillhouse.spec.report import ChosenStudent
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
    teacher_sha256: Sequence[str | None] = ()
    """SHA-256 of the weights of each teacher that is stored, in the order of the spec, when they are known."""
    latencies: Path | None = None
    """A folder where this machine keeps how long teachers take, so that they are not timed in every job."""
    threads: int | None = None
    """CPU threads. The same number gives the same bits; None: torch's own choice."""
    checkpoints: Checkpoints | None = None
    """Where the run writes down how far it is, and goes on from; None: nowhere."""
    wishes: Callable[[], Wish | None] | None = None
    """Asked about once a second what is wished of the run: `stop` or `finish`."""
    hub: Hub = PUBLIC
    """Where published weights come from that the spec asks for, and the tokens it names."""


def run(spec: JobSpec, io: RunIO, report: Callable[[TrainerEvent], None]) -> Finished:
    """Distil as the resolved `spec` says, leave the files in `io.output`, and return what was found.

    `report` gets every event but the last, which is the return value. It is called from this thread, about once a
    second. With `io.checkpoints` a run that died is gone on with, and ends with the bits of one that did not. Raises
    JobFailure with one of `FAILURE_CODES` when the job cannot go on, and Stopped when that was wished.
    """
    device = pick(spec.resources)
    with memory_guard(), heap_kept(), repeatable(device, io.threads):
        reporter, journal = _accounts(spec, io, device, report)
        journal.take_up()
        try:
            return _run(spec, io, device, reporter, journal)
        except Unfit:
            reporter, journal = _accounts(spec, io, device, report)
            reporter.tell(Resumed(file=None))
            reporter.say("The checkpoint belongs to other networks: the run begins anew.", "warning")
            return _run(spec, io, device, reporter, journal)


def _accounts(
    spec: JobSpec, io: RunIO, device: torch.device, report: Callable[[TrainerEvent], None]
) -> tuple[Reporter, Journal]:
    """What the run says to others, and what it writes down for itself."""
    every = INTERVAL if io.checkpoints is None else min(INTERVAL, io.checkpoints.every_seconds)
    reporter = Reporter(report, interval=every)
    arithmetic = [__version__, *bits_depend_on(device), "bf16" if has_bf16(device) else ""]
    prints = Prints(spec.model_dump_json(), io.dataset, io.dataset_sha256, io.teacher, arithmetic)
    journal = Journal(reporter, device, checkpoints=io.checkpoints, prints=prints, wishes=io.wishes)
    reporter.each_time(journal.look)
    return reporter, journal


def _run(spec: JobSpec, io: RunIO, device: torch.device, reporter: Reporter, journal: Journal) -> Finished:
    with reporter.phase(Phase.PREPARING):
        data = read_dataset(io.dataset)
        _refuse_empty_splits(data)
        statistics = measure(data)
        data = data.to(device)
        _introduce_data(data, reporter)
        reporter.advance(step=1)
    _check_precision(spec, device, journal)
    nursery = Nursery(spec, data, statistics, reporter, journal, io.hub)
    architecture, chosen = _chosen(spec, nursery)
    student = nursery.fresh(architecture)
    check_frozen(spec, student)

    # 1. The teacher: trained here on the labels, loaded, several of them, or the student itself, earlier or averaged.
    # First, which of its layers the losses look at: what does not fit is found before anything is spent.
    candidates = entrants(spec, nursery, io.teacher, io.teacher_sha256)
    pairs = _pairs(spec, student, candidates, data, reporter)
    stages = stages_of(spec, pairs)
    average = Ema(student, spec.teacher.ema.decay) if spec.teacher.ema is not None else None
    held_out: dict[Split, Score] = {}
    if average is None:
        if spec.teacher.previous is not None:
            net = ancestor(spec.teacher.previous.generations, architecture, stages, nursery)
            teacher = of_model(nursery.model("teacher", net, architecture))
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
        alone = without_teacher(stages, data)
        nursery.epochs[alone[0].name] = nursery.fit("baseline", baseline, alone)
        models.append(nursery.model("baseline", baseline, architecture))
        gated = held_out and not spec.teacher.of_itself and spec.evaluation.teacher_gate == "on"
        if gated and not journal.finishing:  # neither of the two had its time
            split = judged_on(data)
            found = score(baseline, data, split, between=reporter.breathe)
            let_teach(held_out[split], found, data.y[data.rows[split]], split=split)

    # 3. The teacher's outputs on the training split: computed once, or live when every epoch shows other views, the
    # losses look inside it, or it moves along.
    lessons: list[Teaching | None]
    if average is not None:
        lessons = [moving(average, stage) for stage in stages]
    else:
        lessons = teachings(teacher, stages, data, _keeping(spec, io), reporter)
    give_back()

    # 4. The student.
    for position, (stage, taught) in enumerate(zip(stages, lessons, strict=True)):
        if position and journal.left_out(stage.name):
            nursery.epochs[stage.name] = 0
        else:
            nursery.epochs[stage.name] = nursery.fit("student", student, [stage], taught)
    models.insert(0, nursery.model("student", student, architecture))
    if average is not None:
        teacher = of_model(nursery.model("teacher", average.net, architecture))

    # 5. Measured on the rows none of them was trained on.
    with reporter.phase(Phase.EVALUATING, steps=len(models) + 1):
        scores = [held_out.get("test") or score(teacher.net, data, "test", between=reporter.breathe)]
        for step, model in enumerate(models, start=2):
            scores.append(score(model.net, data, "test", between=reporter.breathe))
            reporter.advance(step=step)

    # 6. The files and the report.
    give_back()
    known, epochs = Latencies(io.latencies), nursery.epochs
    return publish(
        spec, data, teacher, models, scores, chosen, epochs, stages, journal.warnings, io.output, known, reporter
    )


def _chosen(spec: JobSpec, nursery: Nursery) -> tuple[Architecture, ChosenStudent | None]:
    """What is measured by the clock is measured once: the next attempt might choose a neighbour."""
    if (known := nursery.journal.noted("chosen")) is not None:
        chosen = ChosenStudent.model_validate(known)
        return chosen.student, chosen
    architecture, measured_here = choose(
        spec.student, nursery.data, nursery.statistics, nursery.fresh, nursery.reporter
    )
    if measured_here is not None:
        nursery.journal.note("chosen", measured_here.model_dump(mode="json"))
    return architecture, measured_here


def _keeping(spec: JobSpec, io: RunIO) -> Keeping:
    wanted = spec.teacher_outputs
    if wanted.views == AUTO:
        raise ValueError("this spec is not resolved: teacher_outputs.views is still auto")
    return Keeping(wanted.views, wanted.top_k, io.shelf, io.dataset, io.dataset_sha256)


def _refuse_empty_splits(data: Dataset) -> None:
    for split in ("train", "test"):
        if not len(data.rows[split]):
            raise unusable(f"The {split} split of the dataset is empty.")


def _check_precision(spec: JobSpec, device: torch.device, journal: Journal) -> None:
    """Say that bf16 was asked for where the device has none: it would cost time instead of saving it."""
    recipes = [spec.training, *(member.train for member in spec.teacher.members if member.train is not None)]
    if not has_bf16(device) and any(recipe.precision == "bf16" for recipe in recipes):
        here = f"this worker's {device.type} has no instructions for it"
        journal.warn(f"The spec asks for bf16, and {here}: all was worked out in fp32.")


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


def _pairs(
    spec: JobSpec, student: nn.Module, candidates: Sequence[Entrant], data: Dataset, reporter: Reporter
) -> list[Pairs]:
    """For each stage the layers its losses compare, said in the log. The first candidate is looked at, or the student
    where there is none."""
    rows = data.inputs(data.rows["train"][:2])
    out: list[Pairs] = []
    for stage in spec.plan():
        if not any(isinstance(loss, Layered) for loss in stage.losses):
            out.append({})  # and a teacher that lies in files may stay there
            continue
        pairs = pair_layers(stage.losses, student, candidates[0].net if candidates else student, rows)
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
