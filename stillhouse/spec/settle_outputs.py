"""How the teacher's outputs reach the student: what the spec asks for, can it be, and what is its `auto`. A part of
`resolve`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from stillhouse.spec.base import AUTO, concrete
from stillhouse.spec.errors import FieldError
from stillhouse.spec.events import ModelConfig
from stillhouse.spec.facts import DataFacts
from stillhouse.spec.job import JobSpec
from stillhouse.spec.limits import Limits
from stillhouse.spec.losses import Ce, Layered, Loss, Softened, TemperatureRamp
from stillhouse.spec.settle_teacher import Known, with_known
from stillhouse.spec.students import Architecture, architecture_of
from stillhouse.spec.teacher_outputs import TeacherOutputs, most_top_k, most_views, output_bytes
from stillhouse.spec.training import Augmentation, Stage

LIVE_UP_TO = 1.5
"""A teacher whose pass costs at most so many passes of the student adds at most half to a training step of about three
passes (forward, gradients of inputs, gradients of weights)."""
USUAL_VIEWS = 8

_VIEWS, _TOP_K = "/teacher_outputs/views", "/teacher_outputs/top_k"


def settle_outputs(
    spec: JobSpec, facts: DataFacts, limits: Limits, known: Known
) -> tuple[TeacherOutputs, list[FieldError]]:
    """`teacher_outputs` without its `auto`, and what is wrong with it. All else in `spec` is settled already.

    The reason is worked out anew whatever stood there, so that it is true of every resolved spec.
    """
    given = spec.teacher_outputs
    wrong = list(_wrong(spec, facts, limits))
    if wrong:
        return given, wrong
    views, reason = _chosen(spec, facts, limits, known)
    if given.views not in (AUTO, views):
        views, reason = given.views, f"The spec asks for it; auto would be {views}. {reason}"
        if isinstance(views, int) and views > (seen := _most_epochs(spec)):
            reason += (
                f" This job looks at {seen} of the {views:,}, its epochs: the others are made for later jobs alone."
            )
    return given.model_copy(update={"views": views, "reason": reason}), []


def only_live(spec: JobSpec) -> str | None:
    """Why the teacher has to work along; None when its outputs can be worked out beforehand."""
    augmentation = spec.training.augmentation
    if spec.teacher.ema is not None:
        return "The averaged teacher changes with every step"
    if augmentation.mixup > 0 or augmentation.cutmix > 0:
        return "mixup and cutmix mix the rows of a batch, so what is seen depends on the batch"
    asking = _asking(spec)
    if asking and not any(map(_of_outputs, asking)):
        kinds = [loss.kind for stage in asking for loss in stage.losses if isinstance(loss, Layered)]
        return f"{kinds[0]} looks at the teacher's layers, and only its outputs are kept"
    return None


@dataclass(frozen=True)
class PassCosts:
    """What a pass of the teacher and one of the student cost for one row."""

    teacher: int
    student: int
    unit: str
    """multiply-adds where those of all networks are known, else parameters."""

    @property
    def relative(self) -> float:
        """The teacher's pass in passes of the student."""
        return self.teacher / max(1, self.student)

    def __str__(self) -> str:
        return (
            f"A pass of the teacher counts {self.teacher:,} {self.unit}, one of the student {self.student:,}: "
            f"{self.relative:.3g} times as many"
        )


def pass_costs(spec: JobSpec, facts: DataFacts, known: Known) -> PassCosts | None:
    """Both costs; a mean over shifts is as many passes as there are shifts. None: nothing is known of the teacher."""
    student = architecture_of(spec.student)
    if spec.teacher.of_itself:
        return PassCosts(student.macs(facts), student.macs(facts), "multiply-adds")
    nets: list[Architecture | None] = []
    parameters: list[int] = []
    for _, member, held in with_known(spec.teacher, known):
        net = member.train.architecture if member.train is not None else None
        if isinstance(held, ModelConfig):
            net = held.architecture
        if net is None and held is None:
            return None
        nets.append(net)
        parameters.append(held.parameters if held is not None else net.parameters(facts))  # type: ignore[union-attr]
    passes = (2 * spec.teacher.mean_over_shifts + 1) ** 2
    if all(net is not None for net in nets):
        macs = sum(net.macs(facts) for net in nets if net is not None)
        return PassCosts(passes * macs, student.macs(facts), "multiply-adds")
    return PassCosts(passes * sum(parameters), student.parameters(facts), "parameters")


def moves(augmentation: Augmentation) -> bool:
    """True when rows are changed at all."""
    return augmentation != Augmentation()


def _chosen(spec: JobSpec, facts: DataFacts, limits: Limits, known: Known) -> tuple[int | Literal["live"], str]:
    """What `auto` is, and why."""
    rows, classes, top_k = facts.rows["train"], len(facts.classes), spec.teacher_outputs.top_k
    fit = most_views(rows, classes, top_k, limits.max_outputs_bytes)
    if why := only_live(spec):
        return "live", f"{why}: the teacher works along."
    if fit == 0:
        needed, limit = output_bytes(rows, classes, 1, top_k), limits.max_outputs_bytes
        return "live", f"One view would take {needed:,} bytes, and {limit:,} are allowed here: the teacher works along."
    if not moves(spec.training.augmentation):
        return 1, "Without augmentation every epoch shows the same rows: one view of each is kept."
    views = min(USUAL_VIEWS, fit, _most_epochs(spec))
    costs = pass_costs(spec, facts, known)
    if costs is None:
        return views, f"What a pass of the teacher costs is not known: {_kept(views)}."
    if costs.relative > LIVE_UP_TO:
        return views, f"{costs}, and more than {LIVE_UP_TO:g} are too many to ask in every epoch: {_kept(views)}."
    if top_k is not None:
        return views, f"{costs}, few enough to ask in every epoch, but top_k keeps outputs: {_kept(views)}."
    return "live", f"{costs}, and up to {LIVE_UP_TO:g} are few enough to ask in every epoch: the teacher works along."


def _most_epochs(spec: JobSpec) -> int:
    """Of the longest stage that reads kept outputs: an epoch looks at one view."""
    return max((concrete(stage.epochs) for stage in _asking(spec) if _of_outputs(stage)), default=1)


def _kept(views: int) -> str:
    return "one view is kept" if views == 1 else f"{views} views are kept"


def _wrong(spec: JobSpec, facts: DataFacts, limits: Limits) -> Iterator[FieldError]:
    """Everything that speaks against what is asked for."""
    given, live = spec.teacher_outputs, only_live(spec)
    kept = isinstance(given.views, int)
    if live and kept:
        yield _error(_VIEWS, "live_only", f"{live}: say live or auto.")
    elif kept and given.views != 1 and not moves(spec.training.augmentation):
        yield _error(_VIEWS, "without_effect", "Without augmentation all views are the same: say 1 or auto.")
    else:
        yield from _over_quota(given, facts, limits)
    if given.top_k is None:
        return
    if live or given.views == "live":
        why = f"{live}, and" if live else "With live"
        yield _error(_TOP_K, "without_effect", f"{why} nothing is kept that could be made smaller: leave it out.")
        return
    if given.top_k >= len(facts.classes):
        detail = f"The dataset has {len(facts.classes)} classes: keep fewer, or leave it out to keep all."
        yield _error(_TOP_K, "too_many", detail)
    losses = [loss for stage in _asking(spec) if _of_outputs(stage) for loss in stage.losses]
    for detail in _not_of_buckets(losses):
        yield _error(_TOP_K, "needs_all_outputs", detail)


def _over_quota(given: TeacherOutputs, facts: DataFacts, limits: Limits) -> Iterator[FieldError]:
    rows, classes, limit = facts.rows["train"], len(facts.classes), limits.max_outputs_bytes
    views = given.views if isinstance(given.views, int) else 1
    if given.views == "live" or (given.views == AUTO and given.top_k is None):
        return  # auto takes what fits, or live
    if (needed := output_bytes(rows, classes, views, given.top_k)) <= limit:
        return
    fit, fewer = most_views(rows, classes, given.top_k, limit), most_top_k(rows, classes, 1, limit)
    way_out = "Say live."
    if fit:
        way_out = f"{fit} would fit." if fit > 1 else "1 would fit."
    elif fewer:
        way_out = f"Say live, or keep less of each row: 1 view with top_k {fewer} would fit."
    detail = f"{views} x {rows:,} rows take {needed:,} bytes, and {limit:,} are allowed here. {way_out}"
    yield _error(_VIEWS, "over_limit", detail)


def _not_of_buckets(losses: Sequence[Loss]) -> Iterator[str]:
    """Why some of the losses cannot be had from the k largest outputs and the sum of the rest."""
    reading = [loss for loss in losses if not isinstance(loss, Ce)]
    for loss in reading:
        if not loss.of_buckets:
            yield f"{loss.kind} reads every output of the teacher; kd, reverse-kl and jsd can do with the largest."
        elif isinstance(loss, Softened) and loss.standardize:
            yield f"The standardize of {loss.kind} needs the mean of all outputs: leave it out."
        elif isinstance(loss, Softened) and isinstance(loss.course, TemperatureRamp):
            yield f"The temperature of {loss.kind} moves, and the sum of the rest is kept for one: give it one number."
    heats = {loss.course for loss in reading if isinstance(loss, Softened) and isinstance(loss.course, float | int)}
    if len(heats) > 1:
        listed = ", ".join(f"{heat:g}" for heat in sorted(heats))
        yield f"The sum of the rest is kept for one temperature, and the losses have {listed}: give them one."


def _asking(spec: JobSpec) -> list[Stage]:
    """Stages that read the teacher."""
    return [stage for stage in spec.plan() if any(not isinstance(loss, Ce) for loss in stage.losses)]


def _of_outputs(stage: Stage) -> bool:
    """True when the teacher's outputs are all a stage asks for."""
    return not any(isinstance(loss, Layered) for loss in stage.losses)


def _error(pointer: str, code: str, detail: str) -> FieldError:
    return FieldError(pointer=pointer, code=code, detail=detail)
