"""Distillation helps: a small student of a good teacher on real digits, against the same student on labels alone."""

from pathlib import Path

from distill import RunIO, run
from tests.distill.conftest import resolved


def test_a_small_student_learns_from_a_convolutional_teacher(digits_file: Path, tmp_path: Path) -> None:
    spec = resolved(
        digits_file,
        teacher={"train": {"architecture": {"name": "cnn", "channels": [32, 64, 128]}, "epochs": 15}},
        student={"name": "mlp", "hidden": [32]},
        training={"epochs": 60, "learning_rate": 0.01},
        evaluation={"baseline": True},
    )
    report = run(spec, RunIO(digits_file, None, tmp_path, threads=1), lambda event: None).report
    teacher, student, baseline = report.models
    assert teacher.accuracy > 0.98
    assert student.accuracy > 0.95
    # 270 test rows: the slack is two of them.
    assert student.errors <= baseline.errors + 2
    assert student.agreement is not None
    assert student.agreement > 0.95
    # Softened targets teach the odds of the wrong classes too: the student's cross-entropy is lower.
    assert student.loss < baseline.loss


def test_an_mlp_teacher_reaches_what_the_literature_says_of_digits(digits_file: Path, tmp_path: Path) -> None:
    spec = resolved(
        digits_file,
        teacher={"train": {"architecture": {"name": "mlp", "hidden": [256, 256], "dropout": 0.3}, "epochs": 20}},
        training={"epochs": 1},
    )
    report = run(spec, RunIO(digits_file, None, tmp_path, threads=1), lambda event: None).report
    assert report.models[0].accuracy > 0.95
