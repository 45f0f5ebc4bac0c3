"""The stages of a spec as the training loop takes them: the student's, the baseline's, and those of its ancestors."""

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from torch import nn

from distill.augment import moves
from distill.batches import bounds
from distill.data import Dataset
from distill.device import Precision
from distill.losses import needs_teacher
from distill.taps import Pair
from stillhouse.spec import JobSpec, concrete
from stillhouse.spec.errors import JobFailure
from stillhouse.spec.losses import Ce, Layered, Loss
from stillhouse.spec.states import Phase
from stillhouse.spec.training import Augmentation, EarlyStopping, Schedule, Training
from stillhouse.spec.training import Stage as Given

Pairs = Mapping[str, tuple[Pair, ...]]

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
    precision: Precision
    augmentation: Augmentation
    seed: int
    early_stopping: EarlyStopping | None
    keep: Literal["better", "last"] = field(default="last", kw_only=True)
    """As in `TrainTeacher`; everything else keeps the last."""
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

    @property
    def name(self) -> str:
        """What its series start with: no two of a job have the same."""
        return self.series or self.phase


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


def stages_of(spec: JobSpec, pairs: Sequence[Pairs]) -> list[Stage]:
    """The student's stages. `pairs` are the layers each of them compares, by kind of loss."""
    base = stage_of(spec.training, phase=Phase.DISTILLING, stream="student", losses=())
    out = []
    for position, (given, compared) in enumerate(zip(spec.plan(), pairs, strict=True)):
        stage = replace(
            base,
            phase=Phase.DISTILLING if needs_teacher(given.losses) or position == 0 else Phase.FINETUNING,
            stream=_stream(spec, position),
            losses=given.losses,
            pairs=compared,
            freeze=given.freeze,
            epochs=concrete(given.epochs),
            learning_rate=concrete(given.learning_rate),
            schedule=concrete(given.schedule),
            warmup_epochs=given.warmup_epochs,
            early_stopping=given.early_stopping,
            views=_views(spec, given),
        )
        out.append(stage)
    return _told_apart(out)


def without_teacher(stages: list[Stage], data: Dataset) -> list[Stage]:
    """The same stages on the labels alone and without frozen layers, keeping the label smoothing of their ce loss.

    Where the student also sees rows without a label, the baseline gets as many steps: more epochs over fewer rows.
    """
    out = []
    for stage in stages:
        smoothing = next((loss.label_smoothing for loss in stage.losses if isinstance(loss, Ce)), 0.0)
        hard = Ce(kind="ce", weight=1.0, label_smoothing=smoothing)
        longer = _as_many_steps(stage, data) if needs_teacher(stage.losses) else stage
        out.append(replace(longer, phase=Phase.TRAINING_BASELINE, series=None, losses=(hard,), pairs={}, freeze=()))
    return out


def of_generation(stages: list[Stage], generation: int) -> list[Stage]:
    """The stages of an ancestor of the student, with random streams and series of its own."""
    return [
        replace(
            stage,
            phase=Phase.TRAINING_TEACHER,
            stream=f"generation {generation} {stage.stream}",
            series=f"{Phase.TRAINING_TEACHER}-{generation}-{position}",
        )
        for position, stage in enumerate(stages)
    ]


def check_frozen(spec: JobSpec, student: nn.Module) -> None:
    """Raise JobFailure `layer_unknown` or `layer_mismatch` for a stage that freezes what is not there, or all."""
    names = [name for name, _ in student.named_modules() if name]
    for position, stage in enumerate(spec.plan()):
        for path in stage.freeze:
            if path not in names:
                some = difflib.get_close_matches(path, names, n=4, cutoff=0.5) or names[:8]
                raise JobFailure(
                    "layer_unknown",
                    f"stages/{position}/freeze names the layer {path!r}, and the student has none of that name.",
                    hint=f"Its layers are called like {', '.join(some)}.",
                )
        held = {p for path in stage.freeze for p in student.get_submodule(path).parameters()}
        if held == set(student.parameters()):
            detail = f"stages/{position}/freeze leaves no layer of the student to train."
            raise JobFailure("layer_mismatch", detail, hint="Freeze fewer layers, or leave the stage out.")


def _views(spec: JobSpec, stage: Given) -> int | None:
    """How many views come again, in a stage whose teacher's outputs are kept for each of them."""
    views = spec.teacher_outputs.views
    if not isinstance(views, int) or not moves(spec.training.augmentation):
        return None
    reads = needs_teacher(stage.losses) and not any(isinstance(loss, Layered) for loss in stage.losses)
    return views if reads else None


def _stream(spec: JobSpec, position: int) -> str:
    """Random streams by name: those of a plain job are called as they always were, so its bits stay the same."""
    if position == 0:
        return "student"
    return "finetune" if spec.stages is None else f"stage {position}"


def _told_apart(stages: list[Stage]) -> list[Stage]:
    """Several stages of one phase need series of their own."""
    phases = [stage.phase for stage in stages]
    return [
        replace(stage, series=f"{stage.phase}-{position}") if phases.count(stage.phase) > 1 else stage
        for position, stage in enumerate(stages)
    ]


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
