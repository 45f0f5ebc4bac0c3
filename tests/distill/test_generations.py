"""Born-again training: the student's own network teaches its successor."""

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from stillhouse.spec import DataFacts, JobSpec, Limits, resolve
from stillhouse.spec.errors import InvalidSpec
from tests.distill.conftest import resolved
from tests.distill.test_run import Job


def born_again(dataset: Path, output: Path, generations: int, **spec: Any) -> Job:
    teacher = {"previous": {"generations": generations}}
    return Job(dataset, output, teacher=teacher, evaluation={"baseline": True}, **spec)


def test_each_generation_is_the_same_network_and_the_last_is_the_student(digits_file: Path, tmp_path: Path) -> None:
    job = born_again(digits_file, tmp_path / "out", 3, training={"epochs": 2})
    teacher, student, baseline = job.report.models
    assert teacher.architecture == student.architecture == baseline.architecture
    assert job.phases().count("training_teacher") == 3
    assert job.report.epochs_run["training_teacher"] == 6
    series = {name.split("/")[0] for event in job.events if event.type == "metrics" for name in names(event)}
    assert {"training_teacher-0-0", "training_teacher-1-0", "training_teacher-2-0"} <= series
    assert not any("is not smaller" in warning for warning in job.report.warnings)


def names(event: Any) -> list[str]:
    return [point.name for point in event.points]


def test_the_teacher_is_kept_as_a_model_of_its_own(digits_file: Path, tmp_path: Path) -> None:
    job = born_again(digits_file, tmp_path / "out", 1)
    teacher, student = (load_file(job.output / f"{name}.safetensors") for name in ("teacher", "model"))
    assert teacher.keys() == student.keys()
    assert any(not teacher[name].equal(student[name]) for name in teacher)
    assert job.finished.teachers[0].architecture == job.finished.student.architecture


def test_generations_differ_and_repeat_bit_for_bit(digits_file: Path, tmp_path: Path) -> None:
    one, again, two = (
        born_again(digits_file, tmp_path / name, n) for name, n in (("one", 1), ("again", 1), ("two", 2))
    )
    weights = [(job.output / "model.safetensors").read_bytes() for job in (one, again, two)]
    assert weights[0] == weights[1]
    assert weights[0] != weights[2]


def test_the_first_generation_is_no_better_informed_than_the_baseline(digits_file: Path, tmp_path: Path) -> None:
    job = born_again(digits_file, tmp_path / "out", 1, training={"epochs": 20})
    teacher, student, baseline = (model.accuracy for model in job.report.models)
    assert teacher == pytest.approx(baseline, abs=0.05)  # labels alone, other first weights
    assert student >= teacher - 0.03


def test_losses_on_layers_and_a_finetune_stage_work_between_generations(digits_file: Path, tmp_path: Path) -> None:
    job = born_again(
        digits_file,
        tmp_path / "out",
        2,
        student={"name": "cnn", "channels": [4, 8]},
        losses=[{"kind": "kd"}, {"kind": "attention-transfer"}, {"kind": "ce"}],
        finetune={"epochs": 1},
        training={"epochs": 1},
    )
    # Labels and fine-tuning, then the losses and fine-tuning, for the two that come before the student.
    assert job.report.epochs_run == {"training_teacher": 4, "distilling": 1, "finetuning": 1, "training_baseline": 2}
    assert job.phases()[-2:] == ["evaluating", "exporting"]


def test_a_network_cannot_be_shrunk_from_itself(digits_file: Path) -> None:
    with pytest.raises(InvalidSpec) as caught:
        resolved(digits_file, teacher={"previous": {}}, student={"name": "shrink", "width": 0.5})
    assert [error.pointer for error in caught.value.errors] == ["/student"]


@pytest.mark.parametrize("generations", [0, -1, 11, 1.5, True])
def test_a_number_of_generations_out_of_bounds_is_refused(generations: Any) -> None:
    body = {"teacher": {"previous": {"generations": generations}}, "dataset": {"builtin": "digits"}}
    with pytest.raises(ValueError, match="generations"):
        JobSpec.model_validate(body | {"student": {"name": "mlp"}})


def test_the_resolved_spec_names_the_generations(digits_file: Path) -> None:
    spec = JobSpec.model_validate(
        {"teacher": {"previous": {}}, "dataset": {"builtin": "digits"}, "student": {"name": "mlp"}}
    )
    facts = DataFacts(
        task="image-classification",
        shape=(1, 8, 8),
        dtype="uint8",
        classes=("a", "b"),
        rows={"train": 10, "validation": 0, "test": 5},
    )
    out = resolve(spec, facts, Limits())
    assert out.teacher.previous is not None
    assert out.teacher.previous.generations == 1
