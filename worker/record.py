"""The one transaction that makes a job succeed: its report, its files and its models, or none of them."""

from collections.abc import Iterator
from typing import Any

from sqlalchemy.orm import Session

from models import lifecycle
from models.artifact import ArtifactRow
from models.base import db_now
from models.lifecycle import Lease
from models.model import ModelRow
from stillhouse.spec.events import Finished
from stillhouse.spec.ids import new_id
from stillhouse.spec.report import Report
from stillhouse.spec.teacher import Teacher
from stillhouse.spec.views import Condition
from worker.staging import Staged, StoredFile


def success(session: Session, lease: Lease, staged: Staged, finished: Finished, stored: list[StoredFile]) -> bool:
    """Record the result. False, and nothing written, when the lease no longer stands for a running job."""
    models = _models(session, lease, staged, finished, stored)
    values: dict[str, Any] = {
        "report": finished.report.model_dump(mode="json"),
        "verdict": finished.verdict,
        "conditions": [condition.model_dump() for condition in _conditions(finished.report)],
        "phase": None,
        "progress": None,
        "student_model_id": models[0].id,
        "teacher_model_id": _teacher_id(staged.order.spec.teacher, models[1:]),
    }
    if not lifecycle.succeed(session, lease, values):
        return False
    now = db_now(session)
    session.add_all(models)
    session.add_all(
        ArtifactRow(
            job_id=lease.job_id,
            name=item.file.name,
            kind=item.file.kind,
            storage_key=item.key,
            bytes=item.file.bytes,
            sha256=item.file.sha256,
            created_at=now,
        )
        for item in stored
    )
    return True


def _conditions(report: Report) -> Iterator[Condition]:
    """What a caller may want to act on without reading the whole report."""
    teacher, baseline = report.of("teacher"), report.of("baseline")
    if teacher is not None and baseline is not None:
        better = teacher.accuracy > baseline.accuracy
        yield Condition(
            type="TeacherBeatsBaseline",
            status=better,
            reason="Measured",
            message=f"The teacher is right on {teacher.accuracy:.2%} of the test rows, the student alone on "
            f"{baseline.accuracy:.2%}.",
        )
    if report.onnx is not None:
        yield Condition(
            type="OnnxMatchesTorch",
            status=True,
            reason="Checked",
            message=f"Logits differ by {report.onnx.max_abs_difference:.2g} at most on {report.onnx.rows} test rows.",
        )


def _models(
    session: Session, lease: Lease, staged: Staged, finished: Finished, stored: list[StoredFile]
) -> list[ModelRow]:
    """The student, then the teachers trained in the job in the order of its spec."""
    now = db_now(session)
    made = [("student", "student", "weights", finished.student)]
    several = len(finished.teachers) > 1
    for position, config in enumerate(finished.teachers, start=1):
        made.append(("teacher", f"teacher {position}" if several else "teacher", "teacher_weights", config))
    files = {kind: [item for item in stored if item.file.kind == kind] for kind in ("weights", "teacher_weights")}
    rows = []
    for role, title, kind, config in made:
        weights, measured = files[kind].pop(0), finished.report.of(role)
        row = ModelRow(
            id=new_id("mdl"),
            project_id=staged.project_id,
            job_id=lease.job_id,
            name=f"{staged.name} {title}"[:100],
            role=role,
            config=config.model_dump(mode="json"),
            weights_key=weights.key,
            bytes=weights.file.bytes,
            sha256=weights.file.sha256,
            # Of several teachers only their common voice was measured.
            accuracy=None if measured is None or (several and role == "teacher") else measured.accuracy,
            created_at=now,
        )
        rows.append(row)
    return rows


def _teacher_id(teacher: Teacher, trained: list[ModelRow]) -> str | None:
    """The one model that taught; None when there were several."""
    if teacher.ensemble is not None:
        return None
    return trained[0].id if trained else teacher.model
