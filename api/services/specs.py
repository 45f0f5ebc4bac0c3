"""From the bytes a caller posts to a spec that can run: parsed, fitted to data, teacher and limits, resolved."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from pydantic import ValidationError
from sqlalchemy.orm import Session

from api.bodies import MAX_ERRORS, JsonBody, escaped
from api.parts import Parts
from api.services import builtins, secrets
from core.outbound import Guard, Refused
from models import datasets, results
from models.dataset import DatasetRow
from models.model import ModelRow
from stillhouse.spec.base import concrete
from stillhouse.spec.errors import FieldError, InvalidSpec
from stillhouse.spec.facts import DataFacts, DataReport, Split
from stillhouse.spec.job import DatasetRef, JobSpec
from stillhouse.spec.losses import Ce
from stillhouse.spec.problems import field_errors
from stillhouse.spec.resolve import resolve
from stillhouse.spec.settle_teacher import Held, member_pointers, with_known
from stillhouse.spec.students import architecture_of
from stillhouse.spec.teacher import Member
from stillhouse.spec.teachers import map_of
from stillhouse.spec.teachers.config import STORED_CONFIG
from stillhouse.spec.training import Training
from stillhouse.spec.views import Estimate

_LONGEST_LIST = 1000
"""No list of a spec may hold as many. Looked at first: each wrong entry of a list is an error to write out."""
_NEEDED: tuple[tuple[Split, str], ...] = (("train", "learn from"), ("test", "be measured on"))


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A spec and everything it was checked against."""

    spec: JobSpec
    resolved: JobSpec
    dataset: DatasetRow
    facts: DataFacts
    teachers: tuple[Held | None, ...]
    """Of each member of the teacher what the service holds; None: it is trained in the job."""


def fit(parts: Parts, project_id: str, body: JsonBody) -> Fitted:
    """Parse and check a posted spec. Raises InvalidSpec with one entry per wrong field."""
    spec = parse_spec(body)
    _check_webhook(parts, spec)
    secrets.check_named(parts, project_id, spec)
    dataset = _dataset(parts, project_id, spec.dataset)
    facts = DataFacts.model_validate(dataset.facts)
    _check_splits(spec.dataset, facts)
    teachers = tuple(_teacher(parts, project_id, *found) for found in member_pointers(spec.teacher))
    resolved = resolve(spec, facts, parts.settings.limits, teachers=teachers)
    return Fitted(spec=spec, resolved=resolved, dataset=dataset, facts=facts, teachers=teachers)


def parse_spec(body: JsonBody) -> JobSpec:
    """The spec in a body. Raises InvalidSpec."""
    if wrong := list(islice(_long_lists(body.value, ""), MAX_ERRORS)):
        raise InvalidSpec("The spec is not valid: a list is too long.", errors=wrong)
    try:
        return JobSpec.model_validate_json(body.raw)
    except ValidationError as error:
        wrong = field_errors(error, body.value, JobSpec)
        count = "1 field" if len(wrong) == 1 else f"{len(wrong)} fields"
        raise InvalidSpec(f"The spec is not valid: {count} to mend.", errors=wrong[:MAX_ERRORS]) from None


def _long_lists(value: Any, pointer: str) -> Iterator[FieldError]:
    if isinstance(value, list) and len(value) > _LONGEST_LIST:
        detail = f"Has {len(value):,} entries; no list of a spec has more than {_LONGEST_LIST:,}."
        yield FieldError(pointer=pointer, code="too_long", detail=detail)
    elif isinstance(value, list):
        for position, item in enumerate(value):
            yield from _long_lists(item, f"{pointer}/{position}")
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _long_lists(item, f"{pointer}/{escaped(name)}")


def estimate(fitted: Fitted) -> Estimate:
    """What the job would cost, worked out without running it."""
    spec, facts = fitted.resolved, fitted.facts
    student = architecture_of(spec.student)
    return Estimate(
        teacher_parameters=_teacher_parameters(fitted),
        student_parameters=student.parameters(facts),
        student_size_bytes=student.file_bytes(facts),
        steps=_steps(spec, facts),
    )


def warnings(fitted: Fitted) -> list[str]:
    """What a careful person would want to know before the job runs."""
    report = DataReport.model_validate(fitted.dataset.report)
    found = list(report.notes)
    if report.duplicates_across_splits:
        found.append(
            f"{report.duplicates_across_splits} validation or test rows also stand in the training split: "
            "every accuracy will look better than it is."
        )
    for _, member, held in with_known(fitted.spec.teacher, fitted.teachers):
        if held is not None:
            label_map, _ = map_of(held, fitted.facts.classes, member.label_map)
            found += [] if label_map is None else label_map.notes
    # A network that teaches its own successor is meant to be as large.
    teacher = None if fitted.spec.teacher.of_itself else _teacher_parameters(fitted)
    student = architecture_of(fitted.resolved.student).parameters(fitted.facts)
    if teacher is not None and student >= teacher:
        found.append(f"The student ({student:,} parameters) is no smaller than the teacher ({teacher:,}).")
    return found


def hold_inputs(session: Session, project_id: str, fitted: Fitted) -> None:
    """Look again, in the transaction that adds the job, that dataset and teachers are there; they stay until it has
    ended, and after that because the job needs them. Raises InvalidSpec."""
    ref = fitted.spec.dataset
    _usable(ref, datasets.get(session, project_id, fitted.dataset.id, share=True))
    for pointer, member in member_pointers(fitted.spec.teacher):
        if member.model is not None:
            _usable_teacher(pointer, member.model, results.model(session, project_id, member.model, share=True))


def _check_webhook(parts: Parts, spec: JobSpec) -> None:
    """Judge the URL as far as that goes without a look-up; the worker judges it again when it calls."""
    if spec.webhook is None:
        return
    try:
        Guard.of(parts.settings).check_url(spec.webhook.url)
    except Refused as error:
        raise InvalidSpec.at("/webhook/url", error.code, error.detail) from None


def _dataset(parts: Parts, project_id: str, ref: DatasetRef) -> DatasetRow:
    if ref.builtin is not None:
        return builtins.stored(parts, project_id, ref.builtin)
    assert ref.id is not None  # the model holds: exactly one
    with parts.of(project_id).read() as session:
        return _usable(ref, datasets.get(session, project_id, ref.id))


def _usable(ref: DatasetRef, row: DatasetRow | None) -> DatasetRow:
    if row is None:
        raise InvalidSpec.at(
            "/dataset/id",
            "unknown_dataset",
            f"There is no dataset {ref.id}.",
            hint="GET /v1/datasets lists yours; POST /v1/datasets adds one.",
        )
    _refuse_trashed("/dataset/builtin" if ref.id is None else "/dataset/id", "dataset", row)
    return row


def _refuse_trashed(pointer: str, what: str, row: DatasetRow | ModelRow) -> None:
    if row.deleted_at is not None:
        hint = f"POST /v1/{what}s/{row.id}/restore takes it out again."
        raise InvalidSpec.at(pointer, f"deleted_{what}", f"The {what} {row.id} is in the trash.", hint=hint)
    if row.missing_at is not None:
        detail = f"The file of the {what} {row.id} is lost."
        raise InvalidSpec.at(pointer, f"lost_{what}", detail, hint="Upload it again and use the new id.")


def _check_splits(ref: DatasetRef, facts: DataFacts) -> None:
    pointer = "/dataset/builtin" if ref.id is None else "/dataset/id"
    for split, use in _NEEDED:
        if not facts.rows.get(split):
            detail = f"The dataset has no {split} rows, and a job needs some to {use}."
            raise InvalidSpec.at(pointer, "empty_split", detail, hint="Upload the data again with other splits.")


def _teacher(parts: Parts, project_id: str, pointer: str, member: Member) -> Held | None:
    if member.model is None:
        return None
    with parts.of(project_id).read() as session:
        row = _usable_teacher(pointer, member.model, results.model(session, project_id, member.model))
    return STORED_CONFIG.validate_python(row.config)


def _usable_teacher(pointer: str, model_id: str, row: ModelRow | None) -> ModelRow:
    if row is None:
        raise InvalidSpec.at(
            f"{pointer}/model",
            "unknown_model",
            f"There is no model {model_id}.",
            hint="GET /v1/models lists yours; POST /v1/models adds one, and every finished job its student.",
        )
    _refuse_trashed(f"{pointer}/model", "model", row)
    return row


def _teacher_parameters(fitted: Fitted) -> int:
    teacher = fitted.resolved.teacher
    if teacher.of_itself:
        return architecture_of(fitted.resolved.student).parameters(fitted.facts)
    total = 0
    for member, held in zip(teacher.members, fitted.teachers, strict=True):
        if member.train is not None:
            total += member.train.architecture.parameters(fitted.facts)
        elif held is not None:
            total += held.parameters
    return total


def _steps(spec: JobSpec, facts: DataFacts) -> int:
    student = 0
    for stage in spec.plan():
        rows = facts.rows["train"] if any(not isinstance(loss, Ce) for loss in stage.losses) else facts.labelled
        student += concrete(stage.epochs) * _steps_per_epoch(spec.training, rows)
    teachers = sum(_stage_steps(m.train, facts.labelled) for m in spec.teacher.members if m.train is not None)
    # Earlier generations and the baseline are the same student with the same budget.
    generations = 0 if spec.teacher.previous is None else spec.teacher.previous.generations
    return teachers + student * (1 + generations + spec.evaluation.baseline)


def _stage_steps(training: Training, rows: int) -> int:
    return concrete(training.epochs) * _steps_per_epoch(training, rows)


def _steps_per_epoch(training: Training, rows: int) -> int:
    return math.ceil(rows / concrete(training.batch_size))
