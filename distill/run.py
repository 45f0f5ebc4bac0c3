"""One distillation, from top to bottom."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from distill import labels
from distill.augment import moves
from distill.batches import bounds
from distill.choice import choose
from distill.data import Dataset, measure, read_dataset, unusable
from distill.device import memory_guard, pick, repeatable
from distill.evaluate import score
from distill.losses import needs_teacher
from distill.model import Model, load_with_config, trained_model, weight_bytes
from distill.pairing import pair_layers, sentence
from distill.publish import publish
from distill.reporter import Reporter
from distill.seeds import derive
from distill.students import build
from distill.students.from_timm import make_ready
from distill.students.shrink import inherit, recalibrate
from distill.taps import Outputs, Pair, outputs
from distill.train import Stage, Teaching, fit, stage_of
from stillhouse.spec import JobSpec, concrete
from stillhouse.spec.errors import JobFailure
from stillhouse.spec.events import Finished, TrainerEvent
from stillhouse.spec.losses import Ce, Loss
from stillhouse.spec.states import Phase
from stillhouse.spec.students import Architecture, Shrink

_RECALIBRATION_ROWS = 1024
_HARD_LABELS: tuple[Loss, ...] = (Ce(kind="ce", weight=1.0),)


@dataclass(frozen=True)
class RunIO:
    """Where a run reads and writes."""

    dataset: Path
    """A stored dataset file."""
    teacher: Path | None
    """Folder of the teacher (model.safetensors, config.json), when the spec names one."""
    output: Path
    """An empty folder for the files."""
    cache: Path | None = None
    """Folder of teacher outputs shared by jobs; None: keep none."""
    threads: int | None = None
    """CPU threads. The same number gives the same bits; None: torch's own choice."""


def run(spec: JobSpec, io: RunIO, report: Callable[[TrainerEvent], None]) -> Finished:
    """Distil as the resolved `spec` says, leave the files in `io.output`, and return what was found.

    `report` gets every event but the last, which is the return value. It is called from this thread, about once a
    second. Raises JobFailure with one of `FAILURE_CODES` when the job cannot go on.
    """
    device = pick(spec.resources)
    with memory_guard(), repeatable(device, io.threads):
        return _run(spec, io, device, Reporter(report))


def _run(spec: JobSpec, io: RunIO, device: torch.device, reporter: Reporter) -> Finished:
    with reporter.phase(Phase.PREPARING):
        data = read_dataset(io.dataset)
        _refuse_empty_splits(data)
        statistics = measure(data)
        data = data.to(device)
        rows = {split: f"{len(index):,}" for split, index in data.rows.items()}
        reporter.say(
            f"Read {rows['train']} training, {rows['validation']} validation and {rows['test']} test rows "
            f"of {len(data.facts.classes)} classes; training on {device.type}."
        )
        if data.facts.unlabelled:
            reporter.say(
                f"{data.facts.unlabelled:,} training rows have no label: losses that read the teacher alone use them."
            )
        reporter.advance(step=1)

    def fresh(architecture: Architecture, seed: int, stream: str) -> nn.Module:
        # Drawn on the CPU, so every device starts from the same weights.
        torch.default_generator.manual_seed(derive(seed, stream, "init"))
        net = build(architecture, data.facts, statistics.mean, statistics.std)
        make_ready(net, architecture, data.facts)
        return net.to(device)

    epochs: dict[str, int] = {}
    seed = concrete(spec.training.seed)
    architecture, chosen = choose(spec.student, data, statistics, lambda net: fresh(net, seed, "student"), reporter)
    student = fresh(architecture, seed, "student")

    # 1. The teacher: trained here on the labels, an earlier generation of the student, or loaded. First, which of its
    # layers the losses look at: what does not fit is found before anything is spent.
    if (recipe := spec.teacher.train) is not None:
        net = fresh(recipe.architecture, concrete(recipe.seed), "teacher")
        pairs = _pairs(spec, student, net, data, reporter)
        stage = stage_of(recipe, phase=Phase.TRAINING_TEACHER, stream="teacher", losses=_HARD_LABELS)
        epochs[stage.phase] = fit(net, [stage], data.labelled(), None, reporter)
        teacher = trained_model("teacher", net, recipe.architecture, data.facts, statistics)
    elif spec.teacher.previous is not None:
        pairs = _pairs(spec, student, student, data, reporter)

        def born(generation: int) -> nn.Module:
            return fresh(architecture, seed, f"generation {generation}")

        net, epochs[Phase.TRAINING_TEACHER] = _ancestor(
            spec.teacher.previous.generations, born, _stages(spec, pairs), data, reporter
        )
        teacher = trained_model("teacher", net, architecture, data.facts, statistics)
    else:
        teacher = _loaded_teacher(io.teacher, data)
        pairs = _pairs(spec, student, teacher.net, data, reporter)
    _introduce(teacher, data, reporter)
    if isinstance(spec.student, Shrink):
        _start_from(teacher, student, architecture, data, reporter)

    # 2. Its outputs on the training split: computed once, or live when every epoch shows other views or the losses look
    # inside it.
    stages = _stages(spec, pairs)
    teaching = _teaching(teacher, data, io, stages[0], reporter)

    # 3. The student, and the same student without a teacher: same first weights, batches, steps and step sizes.
    for stage in stages:
        reads = needs_teacher(stage.losses)  # or there is nothing to learn from rows without a label
        seen, taught = (data, teaching) if reads else (data.labelled(), None)
        epochs[stage.phase] = fit(student, [stage], seen, taught, reporter)
    models = [teacher, trained_model("student", student, architecture, data.facts, statistics)]
    if spec.evaluation.baseline:
        # Of a shrunk student too the baseline starts at random: layers of the teacher are a lesson as well.
        baseline = fresh(architecture, seed, "student")
        epochs[Phase.TRAINING_BASELINE] = fit(baseline, _without_teacher(stages, data), data.labelled(), None, reporter)
        models.append(trained_model("baseline", baseline, architecture, data.facts, statistics))

    # 4. Measured on the rows none of them was trained on.
    with reporter.phase(Phase.EVALUATING, steps=len(models)):
        scores = []
        for step, model in enumerate(models, start=1):
            scores.append(score(model.net, data, "test"))
            reporter.advance(step=step)

    # 5. The files and the report.
    return publish(spec, data, models, scores, chosen, epochs, pairs, io.output, reporter)


def _refuse_empty_splits(data: Dataset) -> None:
    for split in ("train", "test"):
        if not len(data.rows[split]):
            raise unusable(f"The {split} split of the dataset is empty.")


def _pairs(
    spec: JobSpec, student: nn.Module, teacher: nn.Module, data: Dataset, reporter: Reporter
) -> dict[str, tuple[Pair, ...]]:
    """The layers each loss compares, said in the log."""
    pairs = pair_layers(concrete(spec.losses), student, teacher, data.inputs(data.rows["train"][:2]))
    for kind, compared in pairs.items():
        reporter.say(sentence(kind, compared))
    return pairs


def _stages(spec: JobSpec, pairs: Mapping[str, tuple[Pair, ...]]) -> list[Stage]:
    """Distillation, then, if asked for, fine-tuning on the labels with a step size of its own."""
    first = stage_of(spec.training, phase=Phase.DISTILLING, stream="student", losses=concrete(spec.losses))
    first = replace(first, pairs=pairs)
    if spec.finetune is None:
        return [first]
    hard = Ce(kind="ce", weight=1.0, label_smoothing=spec.finetune.label_smoothing)
    last = replace(
        first,
        phase=Phase.FINETUNING,
        stream="finetune",
        losses=(hard,),
        epochs=concrete(spec.finetune.epochs),
        learning_rate=concrete(spec.finetune.learning_rate),
        schedule="cosine",
        warmup_epochs=0.0,
        early_stopping=None,
    )
    return [first, last]


def _without_teacher(stages: list[Stage], data: Dataset) -> list[Stage]:
    """The same stages on the labels alone, keeping the label smoothing the spec gives its ce loss.

    Where the student also sees rows without a label, the baseline gets as many steps: more epochs over fewer rows.
    """
    out = []
    for stage in stages:
        smoothing = next((loss.label_smoothing for loss in stage.losses if isinstance(loss, Ce)), 0.0)
        hard = Ce(kind="ce", weight=1.0, label_smoothing=smoothing)
        longer = _as_many_steps(stage, data) if needs_teacher(stage.losses) else stage
        out.append(replace(longer, phase=Phase.TRAINING_BASELINE, losses=(hard,)))
    return out


def _as_many_steps(stage: Stage, data: Dataset) -> Stage:
    """`stage` stretched so that over the labelled rows it takes the steps it takes over all."""
    if not data.facts.unlabelled:
        return stage
    every, labelled = (len(bounds(len(some.rows["train"]), stage.batch_size)) for some in (data, data.labelled()))
    patient = stage.early_stopping
    if patient is not None:
        patient = patient.model_copy(update={"patience": math.ceil(patient.patience * every / labelled)})
    return replace(
        stage,
        epochs=round(stage.epochs * every / labelled),
        warmup_epochs=stage.warmup_epochs * every / labelled,
        early_stopping=patient,
    )


def _ancestor(
    generations: int, born: Callable[[int], nn.Module], stages: list[Stage], data: Dataset, reporter: Reporter
) -> tuple[nn.Module, int]:
    """The student's predecessor, and the epochs all before it took: the first learns from the labels, each other one
    from the one before (Furlanello et al. 2018, arXiv:1805.04770 §3). Each starts from weights of its own."""
    net = born(0)
    run = fit(net, _of_generation(_without_teacher(stages, data), 0), data.labelled(), None, reporter)
    for generation in range(1, generations):
        teacher, net = net.requires_grad_(False), born(generation)
        for stage in _of_generation(stages, generation):
            taught = _live(teacher, stage) if needs_teacher(stage.losses) else None
            run += fit(net, [stage], data if taught else data.labelled(), taught, reporter)
    return net, run


def _of_generation(stages: list[Stage], generation: int) -> list[Stage]:
    return [
        replace(
            stage,
            phase=Phase.TRAINING_TEACHER,
            stream=f"generation {generation} {stage.stream}",
            series=f"{Phase.TRAINING_TEACHER}-{generation}-{position}",
        )
        for position, stage in enumerate(stages)
    ]


def _live(teacher: nn.Module, stage: Stage) -> Teaching:
    """A teacher that looks at each batch as the student does."""
    layers = tuple(dict.fromkeys(pair.teacher.path for pairs in stage.pairs.values() for pair in pairs))
    return torch.no_grad()(lambda batch, x: outputs(teacher, x, layers))


def _loaded_teacher(folder: Path | None, data: Dataset) -> Model:
    hint = "Choose another teacher, or train one in the job with teacher.train."
    if folder is None:
        raise JobFailure("teacher_unusable", "The spec names a teacher, and its files were not given.", hint=hint)
    try:
        net, config = load_with_config(folder)
    except ValueError as error:
        raise JobFailure("teacher_unusable", f"The teacher could not be loaded: {error}.", hint=hint) from error
    facts = config.facts
    if facts.shape != data.facts.shape or facts.classes != data.facts.classes:
        detail = (
            f"The teacher takes rows of shape {list(facts.shape)} and knows {len(facts.classes)} classes, the dataset "
            f"has {list(data.facts.shape)} and {len(data.facts.classes)}, or the classes differ in name or order."
        )
        raise JobFailure("teacher_unusable", detail, hint=hint)
    return Model("teacher", net.to(data.x.device), config, weight_bytes(net))


def _introduce(teacher: Model, data: Dataset, reporter: Reporter) -> None:
    """Freeze the teacher, and say how good it is before anything is spent on learning from it."""
    teacher.net.eval().requires_grad_(False)
    if len(data.rows["validation"]):
        found = score(teacher.net, data, "validation")
        reporter.say(f"The teacher is right on {found.accuracy:.2%} of {found.rows:,} validation rows.")


def _start_from(
    teacher: Model, student: nn.Module, architecture: Architecture, data: Dataset, reporter: Reporter
) -> None:
    """Give a shrunk student the teacher's layers, as far as they go."""
    try:
        taken, total = inherit(student, teacher.net, architecture, teacher.config.architecture)
    except ValueError as error:
        hint = "Name an architecture as the student."
        raise JobFailure("teacher_unusable", f"The teacher cannot be shrunk: {error}.", hint=hint) from error
    if len(data.rows["train"]) > 1:
        recalibrate(student, data.inputs(data.rows["train"][:_RECALIBRATION_ROWS]))
    reporter.say(f"The student starts from the teacher: {taken:,} of {total:,} parameters are taken over.")


def _teaching(teacher: Model, data: Dataset, io: RunIO, stage: Stage, reporter: Reporter) -> Teaching | None:
    if not needs_teacher(stage.losses):
        reporter.say("No loss of this job reads the teacher: it is only compared with the student.", "warning")
        return None
    layers = tuple(dict.fromkeys(pair.teacher.path for pairs in stage.pairs.values() for pair in pairs))
    if layers or moves(stage.augmentation):
        why = "Losses look at its layers" if layers else "Images are augmented"
        reporter.say(f"{why}, so the teacher works along on the very views the student sees.")
        return _live(teacher.net, stage)
    with reporter.phase(Phase.LABELLING, steps=len(data.chunks("train"))):
        logits = _logits(teacher, data, io, reporter)
    return lambda batch, x: Outputs(logits[batch])


def _logits(teacher: Model, data: Dataset, io: RunIO, reporter: Reporter) -> Tensor:
    """The teacher's logits [train rows, classes], from the cache where an earlier job has left them."""
    if io.cache is None:
        return labels.teacher_logits(teacher.net, data, reporter)
    shape = (len(data.rows["train"]), len(data.facts.classes))
    key = labels.cache_key(io.dataset, teacher.sha256, teacher.config.model_dump_json(), data.x.device)
    if (found := labels.read_cached(io.cache, key, shape)) is not None:
        reporter.say("An earlier job has run this teacher over this data: its outputs are used again.")
        return found.to(data.x.device)
    logits = labels.teacher_logits(teacher.net, data, reporter)
    if not labels.keep(io.cache, key, logits):
        reporter.say("The teacher's outputs could not be kept for later jobs: the disk refused.", "warning")
    return logits
