"""Do the teachers of a spec fit its data, and what are their `auto`s: a part of `resolve`."""

from collections.abc import Iterator, Sequence

from stillhouse.spec.errors import FieldError
from stillhouse.spec.events import ModelConfig
from stillhouse.spec.facts import DataFacts
from stillhouse.spec.limits import Limits
from stillhouse.spec.losses import Layered, Loss
from stillhouse.spec.settle import architecture_errors
from stillhouse.spec.settle_training import settle_training
from stillhouse.spec.teacher import Ensemble, Member, Teacher, TrainTeacher

Known = Sequence[ModelConfig | None]
"""Of each of `Teacher.members` in turn what the service holds of it; None: nothing, or it is trained in the job."""


def member_pointers(teacher: Teacher) -> Iterator[tuple[str, Member]]:
    """Each member, and the JSON pointer to where the spec describes it."""
    for position, member in enumerate(teacher.members):
        yield ("/teacher" if teacher.ensemble is None else f"/teacher/ensemble/members/{position}"), member


def teacher_errors(teacher: Teacher, facts: DataFacts, limits: Limits, known: Known) -> list[FieldError]:
    """Why the teachers cannot teach on this data under these limits."""
    wrong: list[FieldError] = []
    configs = [*known, *[None] * len(teacher.members)]
    for (pointer, member), config in zip(member_pointers(teacher), configs, strict=False):
        if member.train is not None:
            net = member.train.architecture
            wrong += architecture_errors(net, f"{pointer}/train/architecture", facts, limits)
        elif config is not None:
            wrong += _misfit(f"{pointer}/model", config.facts, facts)
    return wrong


def teacher_loss_errors(teacher: Teacher, stages: Sequence[tuple[Loss, ...]]) -> list[FieldError]:
    """Why the losses cannot learn from such a teacher."""
    if teacher.ensemble is None:
        return []
    layered = [loss.kind for losses in stages for loss in losses if isinstance(loss, Layered)]
    if not layered:
        return []
    detail = f"{layered[0]} looks at the layers of one network, and this teacher is several: name one, or leave it out."
    return [FieldError(pointer="/teacher/ensemble", code="layers_of_several", detail=detail)]


def settle_teacher(teacher: Teacher, facts: DataFacts, limits: Limits, *, seed: int, temperature: float) -> Teacher:
    """The teacher without any `auto`. `temperature` is where an ensemble is mixed unless it says otherwise."""
    if teacher.train is not None:
        return teacher.model_copy(update={"train": _settled(teacher.train, facts, limits, seed)})
    if teacher.ensemble is None:
        return teacher
    given = teacher.ensemble
    mixed_at = temperature if isinstance(given.temperature, str) else given.temperature
    members = tuple(_member(m, i, facts, limits, seed, mixed_at) for i, m in enumerate(given.members))
    return teacher.model_copy(update={"ensemble": Ensemble(members=members, temperature=mixed_at)})


def _member(member: Member, position: int, facts: DataFacts, limits: Limits, seed: int, temperature: float) -> Member:
    changes: dict[str, object] = {}
    if member.train is not None:
        # Equal networks that start from equal weights would be one teacher with two votes.
        changes["train"] = _settled(member.train, facts, limits, seed + position)
    if isinstance(member.temperature, str):
        changes["temperature"] = temperature
    return member.model_copy(update=changes)


def _settled(train: TrainTeacher, facts: DataFacts, limits: Limits, seed: int) -> TrainTeacher:
    return settle_training(train, (train.architecture,), facts.labelled, limits, seed=seed)


def _misfit(pointer: str, teacher: DataFacts, facts: DataFacts) -> list[FieldError]:
    code, detail = "", ""
    if teacher.shape != facts.shape:
        code = "shape_mismatch"
        detail = f"The teacher takes rows of shape {list(teacher.shape)}, the dataset has {list(facts.shape)}."
    elif teacher.classes != facts.classes:
        code, detail = "class_mismatch", _class_difference(teacher, facts)
    elif teacher.features != facts.features:
        code = "column_mismatch"
        detail = "The teacher was made for other columns: they must be the same, in the same order."
    return [FieldError(pointer=pointer, code=code, detail=detail)] if code else []


def _class_difference(teacher: DataFacts, facts: DataFacts) -> str:
    if len(teacher.classes) != len(facts.classes):
        return f"The teacher knows {len(teacher.classes)} classes, the dataset has {len(facts.classes)}."
    other = next(
        f"{b!r} where the teacher has {a!r}" for a, b in zip(teacher.classes, facts.classes, strict=True) if a != b
    )
    return f"The classes differ: the dataset has {other}. They must be the same in the same order."
