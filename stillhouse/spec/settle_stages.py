"""Losses and stages of the student's training: do they make sense, and what are their `auto`s. A part of `resolve`."""

from collections.abc import Sequence

from stillhouse.spec.base import AUTO, concrete
from stillhouse.spec.errors import FieldError
from stillhouse.spec.job import JobSpec
from stillhouse.spec.losses import (
    Ce,
    Kd,
    Layered,
    Loss,
    Softened,
    Temperature,
    TemperatureRamp,
    WeightRamp,
    ever,
    usual_weight,
)
from stillhouse.spec.training import Finetune, Stage, Training

DEFAULT_TEMPERATURE = 4.0
_USUAL: tuple[Loss, ...] = (Kd(kind="kd"), Ce(kind="ce"))
# An average of what has learnt nothing yet has nothing to say: the labels carry the student until it has.
_BESIDE_AN_AVERAGE: tuple[Loss, ...] = (
    Ce(kind="ce", weight=1.0),
    Kd(kind="kd", weight=WeightRamp(start=0.0, end=1.0, until=0.3)),
)

Heat = Temperature | TemperatureRamp


def losses_of(spec: JobSpec) -> list[tuple[Loss, ...]]:
    """The losses of each stage of a spec, resolved or not."""
    if spec.stages is not None:
        return [stage.losses for stage in spec.stages]
    stages = [_given_or_usual(spec)]
    return stages if spec.finetune is None else [*stages, (Ce(kind="ce"),)]


def loss_errors(spec: JobSpec) -> list[FieldError]:
    """A network whose last layer nothing trains gives random answers, however good its hidden layers."""
    at_work = [loss for losses in losses_of(spec) for loss in losses if _works(loss)]
    if not all(isinstance(loss, Layered) for loss in at_work):
        return []
    kinds = tuple(dict.fromkeys(loss.kind for loss in at_work))
    subject = " and ".join(kinds) + (" looks" if len(kinds) == 1 else " look")
    way_out = "or a stage with one of them" if spec.stages is not None else "or a finetune stage"
    detail = f"{subject} at hidden layers alone, so nothing trains the last one: add ce or kd, {way_out}."
    pointer = "/losses" if spec.stages is None else "/stages"
    return [FieldError(pointer=pointer, code="last_layer_untrained", detail=detail)]


def class_weight_errors(spec: JobSpec) -> list[FieldError]:
    """Class weights that no loss would read."""
    hard = any(isinstance(loss, Ce) for losses in losses_of(spec) for loss in losses)
    if spec.training.class_weights == "none" or hard:
        return []
    detail = "Class weights belong to the ce loss, and no stage of the student has one: add it, or leave them out."
    return [FieldError(pointer="/training/class_weights", code="without_effect", detail=detail)]


def settle_stages(spec: JobSpec, training: Training) -> dict[str, object]:
    """`losses`, `finetune`, `stages` and `temperature` of `spec` without any `auto`; `training` is settled already."""
    heat: Heat = DEFAULT_TEMPERATURE if isinstance(spec.temperature, str) else spec.temperature
    changes: dict[str, object] = {"finetune": _finetune(spec.finetune, training)}
    if spec.stages is None:
        losses = _losses(_given_or_usual(spec), heat)
        return {**changes, "losses": losses, "temperature": _one_of(losses)}
    stages = _stages(spec.stages, training, heat)
    return {
        **changes,
        "losses": None,
        "stages": stages,
        "temperature": _one_of([loss for stage in stages for loss in stage.losses]),
    }


def one_number(temperature: object) -> float:
    """The temperature when it is one number, else the usual one."""
    return temperature if isinstance(temperature, float | int) else DEFAULT_TEMPERATURE


def _given_or_usual(spec: JobSpec) -> tuple[Loss, ...]:
    if isinstance(spec.losses, tuple):
        return spec.losses
    return _USUAL if spec.teacher.ema is None else _BESIDE_AN_AVERAGE


def _works(loss: Loss) -> bool:
    return isinstance(loss.weight, str) or ever(loss.weight)


def _one_of(losses: Sequence[Loss]) -> object:
    """Echoed when it says something: one temperature for all of them."""
    heats = {concrete(loss.temperature) for loss in losses if isinstance(loss, Softened)}
    return heats.pop() if len(heats) == 1 else AUTO


def _stages(given: tuple[Stage, ...], training: Training, heat: Heat) -> tuple[Stage, ...]:
    open_ended = sum(isinstance(stage.epochs, str) for stage in given)
    share = max(1, concrete(training.epochs) // max(1, open_ended))
    out = []
    for stage in given:
        defaults: dict[str, object] = {
            "epochs": share,
            "learning_rate": training.learning_rate,
            "schedule": training.schedule,
        }
        changes = {name: value for name, value in defaults.items() if getattr(stage, name) == AUTO}
        losses = _losses(stage.losses, heat if isinstance(stage.temperature, str) else stage.temperature)
        out.append(stage.model_copy(update={**changes, "losses": losses, "temperature": _one_of(losses)}))
    return tuple(out)


def _losses(given: tuple[Loss, ...], heat: Heat) -> tuple[Loss, ...]:
    out = []
    for loss in given:
        changes: dict[str, object] = {}
        if isinstance(loss.weight, str):
            changes["weight"] = usual_weight(loss, given)
        if isinstance(loss, Softened) and isinstance(loss.temperature, str):
            changes["temperature"] = heat
        out.append(loss.model_copy(update=changes))
    return tuple(out)


def _finetune(finetune: Finetune | None, training: Training) -> Finetune | None:
    if finetune is None:
        return None
    defaults: dict[str, object] = {
        "epochs": max(1, concrete(training.epochs) // 10),
        "learning_rate": concrete(training.learning_rate) / 10,
    }
    return finetune.model_copy(update={k: v for k, v in defaults.items() if getattr(finetune, k) == AUTO})
