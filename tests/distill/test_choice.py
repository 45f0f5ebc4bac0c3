"""A budget's student: the largest candidate that is fast enough on this machine."""

from pathlib import Path
from typing import Any

import pytest

from distill import RunIO, run
from stillhouse.spec.errors import JobFailure
from stillhouse.spec.events import Finished, LogLine, ModelConfig
from stillhouse.spec.report import Report
from stillhouse.spec.students import Mlp
from tests.distill.conftest import resolved

CANDIDATES = [{"name": "mlp", "hidden": [units]} for units in (4, 64, 16)]


def job(dataset: Path, output: Path, lines: list[str] | None = None, **student: Any) -> Finished:
    spec = resolved(
        dataset,
        teacher={"train": {"architecture": {"name": "mlp", "hidden": [8]}, "epochs": 1}},
        student=student,
        training={"epochs": 1},
    )

    def listen(event: Any) -> None:
        if lines is not None and isinstance(event, LogLine):
            lines.append(event.message)

    return run(spec, RunIO(dataset, None, output, threads=1), listen)


def test_the_largest_that_is_fast_enough_is_trained_and_echoed(digits_file: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    finished = job(digits_file, tmp_path, lines, budget={"latency_ms": 1000.0}, candidates=CANDIDATES)
    chosen = finished.report.chosen_student
    assert chosen is not None
    assert chosen.student == finished.student.architecture == Mlp(name="mlp", hidden=(64,))
    (looked_at,) = chosen.candidates
    assert looked_at.fits
    assert looked_at.latency_ms is not None
    assert 0 < looked_at.latency_ms <= 1000
    assert looked_at.parameters == finished.report.models[1].parameters == finished.student.parameters
    assert looked_at.size_bytes >= finished.report.models[1].size_bytes
    assert any(line.startswith("The student is mlp hidden=[64]: ") for line in lines)
    # And in the files.
    assert Report.model_validate_json((tmp_path / "report.json").read_text()) == finished.report
    config = ModelConfig.model_validate_json((tmp_path / "config.json").read_text())
    assert config.architecture == chosen.student


def test_what_is_too_slow_is_passed_over(digits_file: Path, tmp_path: Path) -> None:
    # One reads 67 MB of weights for each row, the other 1 kB: half a millisecond lies far from both.
    slow, quick = {"name": "mlp", "hidden": [4096, 4096]}, {"name": "mlp", "hidden": [4]}
    finished = job(digits_file, tmp_path, budget={"latency_ms": 0.5}, candidates=[quick, slow])
    chosen = finished.report.chosen_student
    assert chosen is not None
    assert [candidate.fits for candidate in chosen.candidates] == [False, True]
    assert chosen.candidates[0].latency_ms is not None
    assert chosen.candidates[0].latency_ms > 0.5
    assert finished.student.architecture == Mlp(name="mlp", hidden=(4,))


def test_when_none_is_fast_enough_the_smallest_is_named_with_its_figure(digits_file: Path, tmp_path: Path) -> None:
    with pytest.raises(JobFailure) as caught:
        job(digits_file, tmp_path, budget={"latency_ms": 1e-6}, candidates=CANDIDATES[:2])
    assert caught.value.code == "budget_unmet"
    assert "None of 2 candidates is fast enough: the smallest, mlp hidden=[4], takes 0." in caught.value.detail
    assert list(tmp_path.iterdir()) == []


def test_a_budget_without_latency_is_settled_when_the_spec_is(digits_file: Path, tmp_path: Path) -> None:
    finished = job(digits_file, tmp_path, budget={"parameters": 2_000}, candidates=CANDIDATES)
    chosen = finished.report.chosen_student
    assert chosen is not None
    assert chosen.student == finished.student.architecture == Mlp(name="mlp", hidden=(16,))
    assert [candidate.latency_ms for candidate in chosen.candidates] == [None]
    assert "chosen_student" in (tmp_path / "report.json").read_text()


def test_a_named_student_is_no_choice(digits_file: Path, tmp_path: Path) -> None:
    assert job(digits_file, tmp_path, name="mlp", hidden=[4]).report.chosen_student is None
