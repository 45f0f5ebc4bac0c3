"""From the spec a client wrote to the spec that runs: check it against the data, then give every `auto` its value.

Pure functions of the spec, the facts and the limits: the API calls them before a row is written, the CLI could.
"""

from collections.abc import Iterator

from stillhouse.spec.base import AUTO, concrete
from stillhouse.spec.errors import FieldError, InvalidSpec
from stillhouse.spec.events import ModelConfig
from stillhouse.spec.facts import DataFacts
from stillhouse.spec.job import JobSpec
from stillhouse.spec.limits import Limits
from stillhouse.spec.settle import settle_student
from stillhouse.spec.settle_outputs import settle_outputs
from stillhouse.spec.settle_stages import class_weight_errors, loss_errors, losses_of, one_number, settle_stages
from stillhouse.spec.settle_teacher import (
    Known,
    member_pointers,
    settle_teacher,
    shrink_errors,
    teacher_errors,
    teacher_loss_errors,
)
from stillhouse.spec.settle_training import settle_training
from stillhouse.spec.students import Architecture, candidates_of
from stillhouse.spec.training import Augmentation, Finetune, Stage, Training


def resolve(spec: JobSpec, facts: DataFacts, limits: Limits, *, teachers: Known = ()) -> JobSpec:
    """Return `spec` without any `auto`.

    `teachers` are what the service holds of the teacher, or of each member of an ensemble in turn; None for one that
    is trained in the job. Raises InvalidSpec with one entry per field that does not fit the data, the teacher or the
    limits.
    """
    student, wrong_student = settle_student(spec, facts, limits, _architecture(teachers))
    spec = spec.model_copy(update={"student": student})
    wrong = [*_task_errors(spec, facts), *wrong_student, *loss_errors(spec)]
    wrong += teacher_errors(spec.teacher, facts, limits, teachers)
    wrong += teacher_loss_errors(spec.teacher, losses_of(spec), teachers)
    wrong += shrink_errors(spec.student, spec.teacher, facts, teachers)
    resolved = spec
    if not wrong:
        resolved = _resolved(spec, facts, limits, teachers)
        outputs, wrong = settle_outputs(resolved, facts, limits, teachers)
        resolved = resolved.model_copy(update={"teacher_outputs": outputs})
    wrong += _training_errors(resolved, facts, limits)
    if wrong:
        count = "1 field" if len(wrong) == 1 else f"{len(wrong)} fields"
        raise InvalidSpec(f"The spec does not fit: {count} to mend.", errors=wrong)
    return resolved


def _architecture(teachers: Known) -> Architecture | None:
    """The network of a single teacher that the service holds, where it is one of ours."""
    return teachers[0].architecture if len(teachers) == 1 and isinstance(teachers[0], ModelConfig) else None


def _task_errors(spec: JobSpec, facts: DataFacts) -> list[FieldError]:
    if spec.task in (AUTO, facts.task):
        return []
    detail = f"The dataset is for {facts.task}; say {facts.task} or auto."
    return [FieldError(pointer="/task", code="task_mismatch", detail=detail)]


def _resolved(spec: JobSpec, facts: DataFacts, limits: Limits, known: Known) -> JobSpec:
    training = settle_training(spec.training, candidates_of(spec.student), facts.rows["train"], limits, seed=0)
    stages = settle_stages(spec, training)
    heat, seed = one_number(stages["temperature"]), concrete(training.seed)
    teacher = settle_teacher(spec.teacher, facts, limits, known, seed=seed, temperature=heat)
    return spec.model_copy(update={"task": facts.task, "training": training, "teacher": teacher, **stages})


def _training_errors(spec: JobSpec, facts: DataFacts, limits: Limits) -> list[FieldError]:
    wrong = class_weight_errors(spec)
    for pointer, stage in _trained(spec):
        wrong += _stage_errors(pointer, stage, facts, limits)
    if spec.resources.max_hours is not None and spec.resources.max_hours > limits.max_hours:
        detail = f"At most {limits.max_hours:g} hours are allowed here."
        wrong.append(FieldError(pointer="/resources/max_hours", code="over_limit", detail=detail))
    return wrong


def _trained(spec: JobSpec) -> Iterator[tuple[str, Training | Finetune | Stage]]:
    """Everything that trains, and where the spec says how."""
    yield "/training", spec.training
    for pointer, member in member_pointers(spec.teacher):
        if member.train is not None:
            yield f"{pointer}/train", member.train
    if spec.finetune is not None:
        yield "/finetune", spec.finetune
    for position, stage in enumerate(spec.stages or ()):
        yield f"/stages/{position}", stage


def _stage_errors(
    pointer: str, stage: Training | Finetune | Stage, facts: DataFacts, limits: Limits
) -> list[FieldError]:
    wrong: list[FieldError] = []
    if not isinstance(stage.epochs, str) and stage.epochs > limits.max_epochs:
        detail = f"{stage.epochs} epochs are more than the limit of {limits.max_epochs}."
        wrong.append(FieldError(pointer=f"{pointer}/epochs", code="over_limit", detail=detail))
    if isinstance(stage, Finetune):
        return wrong
    if not isinstance(stage.epochs, str) and stage.warmup_epochs > stage.epochs:
        detail = f"Warm-up of {stage.warmup_epochs:g} epochs is longer than the {stage.epochs} epochs of training."
        wrong.append(FieldError(pointer=f"{pointer}/warmup_epochs", code="too_long", detail=detail))
    if stage.early_stopping is not None and not facts.rows.get("validation"):
        detail = "Early stopping watches the validation split, and this dataset has none: upload it with one."
        wrong.append(FieldError(pointer=f"{pointer}/early_stopping", code="no_validation_split", detail=detail))
    if isinstance(stage, Stage):
        return wrong
    if not isinstance(stage.batch_size, str) and stage.batch_size > limits.max_batch_size:
        detail = f"A batch of {stage.batch_size} is more than the limit of {limits.max_batch_size}."
        wrong.append(FieldError(pointer=f"{pointer}/batch_size", code="over_limit", detail=detail))
    return wrong + _augmentation_errors(f"{pointer}/augmentation", stage.augmentation, facts)


def _augmentation_errors(pointer: str, augmentation: Augmentation, facts: DataFacts) -> list[FieldError]:
    if facts.task != "image-classification":
        if augmentation == Augmentation(mixup=augmentation.mixup):
            return []
        detail = "Tables can be mixed (mixup); all other augmentation is for images. Leave it out."
        return [FieldError(pointer=pointer, code="not_for_tables", detail=detail)]
    coloured = [name for name in ("colour_jitter", "rand_augment") if getattr(augmentation, name)]
    if facts.shape[0] in (1, 3):
        return []
    detail = f"It is for gray and colour images; these have {facts.shape[0]} channels. Leave it out."
    return [FieldError(pointer=f"{pointer}/{name}", code="not_for_these_images", detail=detail) for name in coloured]
