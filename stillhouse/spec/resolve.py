"""From the spec a client wrote to the spec that runs: check it against the data, then give every `auto` its value.

Pure functions of the spec, the facts and the limits: the API calls them before a row is written, the CLI could.
"""

import math

from stillhouse.spec.base import AUTO, concrete
from stillhouse.spec.errors import FieldError, InvalidSpec
from stillhouse.spec.facts import DataFacts
from stillhouse.spec.job import Augmentation, Finetune, JobSpec, Teacher, Training
from stillhouse.spec.limits import Limits
from stillhouse.spec.losses import Ce, Kd, Layered, Loss, Softened, usual_weight
from stillhouse.spec.settle import architecture_errors, settle_student
from stillhouse.spec.students import Architecture, Cnn, Mlp, Timm, candidates_of

DEFAULT_TEMPERATURE = 4.0
_TARGET_STEPS = 3_000
_SGD, _SGD_PRETRAINED = 0.05, 0.01


def resolve(
    spec: JobSpec,
    facts: DataFacts,
    limits: Limits,
    *,
    teacher_facts: DataFacts | None = None,
    teacher_architecture: Architecture | None = None,
) -> JobSpec:
    """Return `spec` without any `auto`.

    `teacher_facts` are the facts of the data a `model` teacher was made on, `teacher_architecture` its network.
    Raises InvalidSpec with one entry per field that does not fit the data, the teacher or the limits.
    """
    student, wrong_student = settle_student(spec, facts, limits, teacher_architecture)
    spec = spec.model_copy(update={"student": student})
    wrong = [*_task_errors(spec, facts), *wrong_student, *_loss_errors(spec)]
    wrong += _teacher_errors(spec, facts, limits, teacher_facts)
    resolved = _resolved(spec, facts, limits) if not wrong else spec
    wrong += _training_errors(resolved, facts, limits)
    if wrong:
        count = "1 field" if len(wrong) == 1 else f"{len(wrong)} fields"
        raise InvalidSpec(f"The spec does not fit: {count} to mend.", errors=wrong)
    return resolved


def _task_errors(spec: JobSpec, facts: DataFacts) -> list[FieldError]:
    if spec.task in (AUTO, facts.task):
        return []
    return [
        FieldError(
            pointer="/task",
            code="task_mismatch",
            detail=f"The dataset is for {facts.task}; say {facts.task} or auto.",
        )
    ]


def _teacher_errors(spec: JobSpec, facts: DataFacts, limits: Limits, teacher: DataFacts | None) -> list[FieldError]:
    if spec.teacher.train is not None:
        return architecture_errors(spec.teacher.train.architecture, "/teacher/train/architecture", facts, limits)
    if teacher is None:
        return []
    code, detail = "", ""
    if teacher.shape != facts.shape:
        code = "shape_mismatch"
        detail = f"The teacher takes rows of shape {list(teacher.shape)}, the dataset has {list(facts.shape)}."
    elif teacher.classes != facts.classes:
        code, detail = "class_mismatch", _class_difference(teacher, facts)
    elif teacher.features != facts.features:
        code = "column_mismatch"
        detail = "The teacher was made for other columns: they must be the same, in the same order."
    return [FieldError(pointer="/teacher/model", code=code, detail=detail)] if code else []


def _class_difference(teacher: DataFacts, facts: DataFacts) -> str:
    if len(teacher.classes) != len(facts.classes):
        return f"The teacher knows {len(teacher.classes)} classes, the dataset has {len(facts.classes)}."
    other = next(
        f"{b!r} where the teacher has {a!r}" for a, b in zip(teacher.classes, facts.classes, strict=True) if a != b
    )
    return f"The classes differ: the dataset has {other}. They must be the same in the same order."


def _loss_errors(spec: JobSpec) -> list[FieldError]:
    """A network whose last layer nothing trains gives random answers, however good its hidden layers."""
    if isinstance(spec.losses, str) or spec.finetune is not None:
        return []
    at_work = [loss for loss in spec.losses if isinstance(loss.weight, str) or loss.weight > 0]
    if not all(isinstance(loss, Layered) for loss in at_work):
        return []
    names = " and ".join(loss.kind for loss in at_work)
    detail = f"{names} look at hidden layers alone, so nothing trains the last one: add ce or kd, or a finetune stage."
    return [FieldError(pointer="/losses", code="last_layer_untrained", detail=detail)]


def _training_errors(spec: JobSpec, facts: DataFacts, limits: Limits) -> list[FieldError]:
    wrong: list[FieldError] = []
    stages: list[tuple[str, Training | Finetune]] = [("/training", spec.training)]
    if spec.teacher.train is not None:
        stages.append(("/teacher/train", spec.teacher.train))
    if spec.finetune is not None:
        stages.append(("/finetune", spec.finetune))
    hard = spec.finetune is not None or isinstance(spec.losses, str) or any(isinstance(x, Ce) for x in spec.losses)
    if spec.training.class_weights != "none" and not hard:
        detail = "Class weights belong to the ce loss, and no stage of the student has one: add it, or leave them out."
        wrong.append(FieldError(pointer="/training/class_weights", code="without_effect", detail=detail))
    for pointer, stage in stages:
        wrong += _stage_errors(pointer, stage, facts, limits)
    if spec.resources.max_hours is not None and spec.resources.max_hours > limits.max_hours:
        detail = f"At most {limits.max_hours:g} hours are allowed here."
        wrong.append(FieldError(pointer="/resources/max_hours", code="over_limit", detail=detail))
    return wrong


def _stage_errors(pointer: str, stage: Training | Finetune, facts: DataFacts, limits: Limits) -> list[FieldError]:
    wrong: list[FieldError] = []
    if not isinstance(stage.epochs, str) and stage.epochs > limits.max_epochs:
        detail = f"{stage.epochs} epochs are more than the limit of {limits.max_epochs}."
        wrong.append(FieldError(pointer=f"{pointer}/epochs", code="over_limit", detail=detail))
    if isinstance(stage, Finetune):
        return wrong
    if not isinstance(stage.batch_size, str) and stage.batch_size > limits.max_batch_size:
        detail = f"A batch of {stage.batch_size} is more than the limit of {limits.max_batch_size}."
        wrong.append(FieldError(pointer=f"{pointer}/batch_size", code="over_limit", detail=detail))
    if not isinstance(stage.epochs, str) and stage.warmup_epochs > stage.epochs:
        detail = f"Warm-up of {stage.warmup_epochs:g} epochs is longer than the {stage.epochs} epochs of training."
        wrong.append(FieldError(pointer=f"{pointer}/warmup_epochs", code="too_long", detail=detail))
    wrong += _augmentation_errors(f"{pointer}/augmentation", stage.augmentation, facts)
    if stage.early_stopping is not None and not facts.rows.get("validation"):
        detail = "Early stopping watches the validation split, and this dataset has none: upload it with one."
        wrong.append(FieldError(pointer=f"{pointer}/early_stopping", code="no_validation_split", detail=detail))
    return wrong


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


def _resolved(spec: JobSpec, facts: DataFacts, limits: Limits) -> JobSpec:
    temperature, losses = _losses(spec)
    training = _training(spec.training, candidates_of(spec.student), facts.rows["train"], limits, seed=0)
    changes: dict[str, object] = {
        "task": facts.task,
        "temperature": temperature,
        "losses": losses,
        "training": training,
        "teacher": _teacher(spec.teacher, facts, limits, seed=concrete(training.seed)),
        "finetune": _finetune(spec.finetune, training),
    }
    return spec.model_copy(update=changes)


def _losses(spec: JobSpec) -> tuple[float | str, tuple[Loss, ...]]:
    given: tuple[Loss, ...] = (Kd(kind="kd"), Ce(kind="ce")) if isinstance(spec.losses, str) else spec.losses
    temperature = DEFAULT_TEMPERATURE if isinstance(spec.temperature, str) else spec.temperature
    out = tuple(_loss(loss, given, temperature) for loss in given)
    softened = [concrete(loss.temperature) for loss in out if isinstance(loss, Softened)]
    # Echoed when it says something: one temperature for all of them.
    return (softened[0] if len(set(softened)) == 1 else AUTO), out


def _loss(loss: Loss, beside: tuple[Loss, ...], temperature: float) -> Loss:
    changes: dict[str, object] = {}
    if isinstance(loss.weight, str):
        changes["weight"] = usual_weight(loss, beside)
    if isinstance(loss, Softened) and isinstance(loss.temperature, str):
        changes["temperature"] = temperature
    return loss.model_copy(update=changes)


def _teacher(teacher: Teacher, facts: DataFacts, limits: Limits, *, seed: int) -> Teacher:
    if teacher.train is None:
        return teacher
    return teacher.model_copy(
        update={"train": _training(teacher.train, (teacher.train.architecture,), facts.labelled, limits, seed=seed)}
    )


def _training(training: Training, nets: tuple[Architecture, ...], rows: int, limits: Limits, *, seed: int) -> Training:
    """`rows` are those it trains on."""
    rows = max(1, rows)
    usual = min(128 if rows >= 1280 else 32, limits.max_batch_size)
    batch = usual if isinstance(training.batch_size, str) else training.batch_size
    steps = math.ceil(rows / batch)
    defaults: dict[str, object] = {
        "epochs": min(200, max(10, round(_TARGET_STEPS / steps)), limits.max_epochs),
        "batch_size": batch,
        "learning_rate": _learning_rate(training, nets),
        "weight_decay": {"adamw": 0.01, "adam": 0.0, "sgd": 5e-4}[training.optimizer],
        "momentum": 0.9 if training.optimizer == "sgd" else 0.0,
        "precision": "fp32",
        "seed": seed,
    }
    return training.model_copy(update={k: v for k, v in defaults.items() if getattr(training, k) == AUTO})


def _learning_rate(training: Training, nets: tuple[Architecture, ...]) -> float:
    """The step size the most delicate of the networks bears."""
    if training.optimizer == "sgd":
        return min(_SGD_PRETRAINED if isinstance(net, Timm) and net.pretrained else _SGD for net in nets)
    return min(_adam_rate(net) for net in nets)


def _adam_rate(net: Architecture) -> float:
    if isinstance(net, Timm):
        # Transformers diverge at what batch norm bears, and published weights are soon forgotten.
        return 0.0003 if net.pretrained else 0.001
    if isinstance(net, Mlp):
        return 0.003
    # Small networks with batch norm bear more, and with less they are not done in the usual number of steps: on digits
    # a cnn of 8-16 channels made 23 mistakes at 0.002 and 5 at 0.01 when it was taught, 17 and 10 when it was not.
    return 0.01 if isinstance(net, Cnn) else 0.005


def _finetune(finetune: Finetune | None, training: Training) -> Finetune | None:
    if finetune is None:
        return None
    defaults: dict[str, object] = {
        "epochs": max(1, concrete(training.epochs) // 10),
        "learning_rate": concrete(training.learning_rate) / 10,
    }
    return finetune.model_copy(update={k: v for k, v in defaults.items() if getattr(finetune, k) == AUTO})
