"""The report: what was measured, set side by side, and what a careful reader must know about it."""

import json
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from distill.data import Dataset
from distill.evaluate import Score, wilson
from distill.gate import beats
from distill.stages import Stage
from distill.taps import Pair
from stillhouse.spec import DataFacts, JobSpec
from stillhouse.spec.errors import JobFailure
from stillhouse.spec.job import Targets
from stillhouse.spec.losses import Kd, TemperatureRamp
from stillhouse.spec.report import Latency, LayersCompared, Measured, TargetResult
from stillhouse.spec.states import Verdict
from stillhouse.spec.students import Architecture, Cnn, Mlp, Mobilenet, Resnet

_FEW_TEST_ROWS = 200
_SMALL_STUDENT = 100_000  # parameters
_HIGH_TEMPERATURE = 8.0


def describe(architecture: Architecture, facts: DataFacts) -> str:
    """A few words for a table, such as `mlp 64-1200-1200-10`."""
    if isinstance(architecture, Mlp):
        return "mlp " + "-".join(map(str, (facts.inputs, *architecture.hidden, len(facts.classes))))
    if isinstance(architecture, Cnn):
        return "cnn " + "-".join(map(str, (facts.shape[0], *architecture.channels, len(facts.classes))))
    if isinstance(architecture, Resnet):
        return f"resnet-{architecture.depth} width {architecture.width}"
    if isinstance(architecture, Mobilenet):
        return f"mobilenet width {architecture.width:g} depth {architecture.depth}"
    enlarged = "" if architecture.input_size is None else f" at {architecture.input_size} px"
    return f"timm {architecture.architecture}{enlarged}"


def measured(
    role: str,
    architecture: str,
    score: Score,
    data: Dataset,
    *,
    teacher: Score,
    parameters: int,
    size_bytes: int,
    latency: list[Latency],
) -> Measured:
    """The row of one model in the table."""
    per_class = _per_class(score.classes, data)
    agreement = float((score.classes == teacher.classes).double().mean())
    return Measured(
        role=role,
        architecture=architecture,
        accuracy=score.accuracy,
        accuracy_interval=wilson(score.correct, score.rows),
        errors=score.rows - score.correct,
        rows=score.rows,
        loss=score.loss,
        agreement=None if role == "teacher" else agreement,
        parameters=parameters,
        size_bytes=size_bytes,
        latency=latency,
        balanced_accuracy=_mean([share for share in per_class.values() if share is not None]),
        per_class_accuracy=per_class,
    )


def gap_recovered(teacher: Measured, student: Measured, baseline: Measured | None) -> float | None:
    """(student - baseline) / (teacher - baseline) in errors; None without a gap to recover."""
    if baseline is None or teacher.errors >= baseline.errors:
        return None
    return (baseline.errors - student.errors) / (baseline.errors - teacher.errors)


def lead_by_chance(scores: Sequence[Score], data: Dataset) -> list[str]:
    """A warning where the teacher's lead over the baseline is no more than chance explains: a share of it says nothing.

    `scores` on the test split are those of the teacher, the student and, if there is one, the baseline.
    """
    teacher, _, *baseline = scores
    labels = data.y[data.rows["test"]]
    if not baseline or teacher.correct <= baseline[0].correct or beats(teacher, baseline[0], labels):
        return []
    lead = teacher.correct - baseline[0].correct
    return [
        f"The teacher is right on {lead} of {teacher.rows:,} test rows more than the baseline, which chance explains "
        "too: what share of that lead the student has says little."
    ]


def layers_compared(stages: Sequence[Stage]) -> dict[str, list[LayersCompared]]:
    """Per kind of loss, the layers it looked at; of several stages that differ, each under a name of its own."""
    out: dict[str, list[LayersCompared]] = {}
    for position, stage in enumerate(stages, start=1):
        for kind, compared in stage.pairs.items():
            found = [_compared(pair) for pair in compared]
            name = kind if out.get(kind, found) == found else f"{kind}, stage {position}"
            out[name] = found
    return out


def _compared(pair: Pair) -> LayersCompared:
    return LayersCompared(
        student=pair.student.path,
        teacher=pair.teacher.path,
        student_shape=list(pair.student.shape),
        teacher_shape=list(pair.teacher.shape),
    )


def judge(targets: Targets, student: Measured) -> tuple[list[TargetResult], Verdict | None]:
    """Each stated target with what was measured, and whether all are met. No targets, no verdict.

    Raises JobFailure `export_failed` when a latency is asked for and none could be measured.
    """
    results = []
    if targets.min_accuracy is not None:
        results.append(_at_least("min_accuracy", targets.min_accuracy, student.accuracy))
    if targets.min_agreement is not None:
        results.append(_at_least("min_agreement", targets.min_agreement, student.agreement or 0.0))
    if targets.max_size_mb is not None:
        results.append(_at_most("max_size_mb", targets.max_size_mb, student.size_bytes / 1e6))
    if targets.max_latency_ms is not None:
        one = next((entry for entry in student.latency if entry.batch == 1), None)
        if one is None:
            raise JobFailure(
                "export_failed",
                "The spec has a target for latency, and the student could not be timed.",
                hint="Leave targets.max_latency_ms out, and report this job.",
            )
        results.append(_at_most("max_latency_ms", targets.max_latency_ms, one.median_ms))
    if not results:
        return [], None
    return results, "passed" if all(result.met for result in results) else "below_target"


def warnings(spec: JobSpec, data: Dataset, models: list[Measured]) -> list[str]:
    """Sentences about whatever makes the table say less than it seems to."""
    by_role = {model.role: model for model in models}
    teacher, student, baseline = by_role["teacher"], by_role["student"], by_role.get("baseline")
    out = []
    if baseline is not None and teacher.errors == baseline.errors == 0:
        out.append(
            f"Teacher and baseline are right on all {teacher.rows:,} test rows, which cannot show whether there was "
            "anything to learn."
        )
    elif baseline is not None and teacher.errors >= baseline.errors:
        out.append(
            f"The teacher is no better than the baseline ({teacher.errors} and {baseline.errors} errors): "
            "there was nothing to learn from it. Train it longer, make it larger, or take another one."
        )
    if not spec.teacher.of_itself and student.parameters >= teacher.parameters:
        out.append(
            f"The student has {student.parameters:,} parameters, the teacher {teacher.parameters:,}: it is not smaller."
        )
    if student.rows < _FEW_TEST_ROWS:
        out.append(
            f"The test split has {student.rows} rows: one row is {100 / student.rows:.1f} points of accuracy. "
            "Read the intervals, not the differences."
        )
    if leaked := data.report.duplicates_across_splits:
        out.append(
            f"{leaked} validation or test rows also stand in the training split: every accuracy here is flattered."
        )
    return out + _spec_warnings(spec, student) + _class_warnings(data, student)


def _spec_warnings(spec: JobSpec, student: Measured) -> list[str]:
    if student.parameters >= _SMALL_STUDENT:
        return []
    heats = [x.course for stage in spec.plan() for x in stage.losses if isinstance(x, Kd)]
    ends = [heat.end if isinstance(heat, TemperatureRamp) else heat for heat in heats]
    return [
        f"The temperature is {heat:g} and the student has {student.parameters:,} parameters: "
        "small students usually learn more at 2 to 4."
        for heat in dict.fromkeys(ends)
        if heat > _HIGH_TEMPERATURE
    ]


def _class_warnings(data: Dataset, student: Measured) -> list[str]:
    missing = [name for name, share in student.per_class_accuracy.items() if share is None]
    if not missing:
        return []
    names = ", ".join(map(json.dumps, missing[:5])) + (" and more" if len(missing) > 5 else "")
    return [f"{len(missing)} of {len(data.facts.classes)} classes have no test row, so nothing is known of: {names}."]


def _per_class(given: Tensor, data: Dataset) -> dict[str, float | None]:
    classes = len(data.facts.classes)
    labels = data.y[data.rows["test"]].cpu()
    right = torch.bincount(labels[given.cpu() == labels], minlength=classes).tolist()
    rows = torch.bincount(labels, minlength=classes).tolist()
    return {name: r / n if n else None for name, r, n in zip(data.facts.classes, right, rows, strict=True)}


def _mean(shares: list[float]) -> float:
    return math.fsum(shares) / len(shares)


def _at_least(name: str, wanted: float, found: float) -> TargetResult:
    return TargetResult(name=name, wanted=wanted, measured=found, met=found >= wanted)


def _at_most(name: str, wanted: float, found: float) -> TargetResult:
    return TargetResult(name=name, wanted=wanted, measured=found, met=found <= wanted)
