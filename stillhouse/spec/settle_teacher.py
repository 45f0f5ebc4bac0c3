"""Do the teachers of a spec fit its data, and what are their `auto`s: a part of `resolve`."""

from collections.abc import Iterator, Sequence

from stillhouse.spec.errors import FieldError
from stillhouse.spec.events import ModelConfig
from stillhouse.spec.facts import DataFacts
from stillhouse.spec.limits import Limits
from stillhouse.spec.losses import Layered, Loss
from stillhouse.spec.settle import architecture_errors
from stillhouse.spec.settle_training import settle_training
from stillhouse.spec.students import Shrink, Student
from stillhouse.spec.teacher import Ensemble, Member, Teacher, TrainTeacher
from stillhouse.spec.teachers import ExportedNet, ForeignConfig, OnnxNet, in_writing, map_of, teacher_misfits

Held = ModelConfig | ForeignConfig
"""What the service holds of a model."""
Known = Sequence[Held | None]
"""Of each of `Teacher.members` in turn what the service holds of it; None: nothing, or it is trained in the job."""
_BLACK_BOXES = (OnnxNet, ExportedNet)


def member_pointers(teacher: Teacher) -> Iterator[tuple[str, Member]]:
    """Each member, and the JSON pointer to where the spec describes it."""
    for position, member in enumerate(teacher.members):
        yield ("/teacher" if teacher.ensemble is None else f"/teacher/ensemble/members/{position}"), member


def with_known(teacher: Teacher, known: Known) -> Iterator[tuple[str, Member, Held | None]]:
    """`member_pointers`, and what the service holds of each."""
    configs = [*known, *[None] * len(teacher.members)]
    for (pointer, member), config in zip(member_pointers(teacher), configs, strict=False):
        yield pointer, member, config


def teacher_errors(teacher: Teacher, facts: DataFacts, limits: Limits, known: Known) -> list[FieldError]:
    """Why the teachers cannot teach on this data under these limits."""
    wrong: list[FieldError] = []
    for pointer, member, config in with_known(teacher, known):
        if member.train is not None:
            net = member.train.architecture
            wrong += architecture_errors(net, f"{pointer}/train/architecture", facts, limits)
        elif config is not None:
            # Of a teacher that cannot look at the rows, it is idle to list the classes it lacks.
            misfits = teacher_misfits(config, facts, f"{pointer}/model")
            wrong += misfits or map_of(config, facts.classes, member.label_map, pointer)[1]
    if teacher.mean_over_shifts and facts.task != "image-classification":
        detail = "Tables cannot be shifted: leave it out."
        wrong.append(FieldError(pointer="/teacher/mean_over_shifts", code="not_for_tables", detail=detail))
    return wrong


def teacher_loss_errors(teacher: Teacher, stages: Sequence[tuple[Loss, ...]], known: Known) -> list[FieldError]:
    """Why the losses cannot learn from such a teacher."""
    layered = [loss.kind for losses in stages for loss in losses if isinstance(loss, Layered)]
    if not layered:
        return []
    if teacher.ensemble is not None:
        detail = (
            f"{layered[0]} looks at the layers of one network, and this teacher is several: name one, or leave it out."
        )
        return [FieldError(pointer="/teacher/ensemble", code="layers_of_several", detail=detail)]
    if teacher.mean_over_shifts:
        detail = f"{layered[0]} looks at the layers of one pass, and this teacher makes several: leave one of them out."
        return [FieldError(pointer="/teacher/mean_over_shifts", code="layers_of_several", detail=detail)]
    if not any(isinstance(config, ForeignConfig) and isinstance(config.network, _BLACK_BOXES) for config in known):
        return []
    detail = (
        f"{layered[0]} looks at layers, and this teacher has none that can be seen: it is a black box, of which only "
        "the outputs are known. Take kd or another loss on outputs, or upload the network's weights instead."
    )
    return [FieldError(pointer="/teacher/model", code="black_box", detail=detail)]


def shrink_errors(student: Student, teacher: Teacher, facts: DataFacts, known: Known) -> list[FieldError]:
    """Why the student cannot start from the layers of a teacher that is one of ours: its last layer would be wrong."""
    if isinstance(student, Shrink) and teacher.mean_over_shifts:
        detail = "A mean over shifts is not one network: name an architecture, or leave mean_over_shifts out."
        return [FieldError(pointer="/student", code="cannot_shrink", detail=detail)]
    if not isinstance(student, Shrink) or teacher.model is None or not known or not isinstance(known[0], ModelConfig):
        return []
    found, _ = map_of(known[0], facts.classes, teacher.label_map)
    if found is None or found.changes_nothing:
        return []
    detail = "The teacher's classes are mapped to the dataset's, so it cannot be shrunk: name an architecture."
    return [FieldError(pointer="/student", code="cannot_shrink", detail=detail)]


def settle_teacher(
    teacher: Teacher, facts: DataFacts, limits: Limits, known: Known, *, seed: int, temperature: float
) -> Teacher:
    """The teacher without any `auto`, and with the label maps that will be used. `temperature` is where an ensemble is
    mixed unless it says otherwise."""
    if teacher.of_itself:
        return teacher
    if teacher.ensemble is None:
        (_, member, config), *_ = with_known(teacher, known)
        return teacher.model_copy(update=_source(member, config, facts, limits, seed))
    given = teacher.ensemble
    mixed_at = temperature if isinstance(given.temperature, str) else given.temperature
    members = []
    # Equal networks that start from equal weights would be one teacher with two votes.
    for position, (_, member, config) in enumerate(with_known(teacher, known)):
        changes = _source(member, config, facts, limits, seed + position)
        if isinstance(member.temperature, str):
            changes["temperature"] = mixed_at
        members.append(member.model_copy(update=changes))
    return teacher.model_copy(update={"ensemble": Ensemble(members=tuple(members), temperature=mixed_at)})


def _source(member: Member, config: Held | None, facts: DataFacts, limits: Limits, seed: int) -> dict[str, object]:
    """How it is trained, or in which classes it answers."""
    if member.train is not None:
        return {"train": _settled(member.train, facts, limits, seed)}
    if config is None:
        return {}
    found, _ = map_of(config, facts.classes, member.label_map)
    return {} if found is None else {"label_map": in_writing(config, found, facts.classes)}


def _settled(train: TrainTeacher, facts: DataFacts, limits: Limits, seed: int) -> TrainTeacher:
    return settle_training(train, (train.architecture,), facts.labelled, limits, seed=seed)
