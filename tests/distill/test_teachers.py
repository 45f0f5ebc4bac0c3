"""Several teachers, a teacher that is the student's own average, and teachers with nothing to say."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from distill import FolderShelf
from distill.ema import Ema
from distill.ensemble import Mixture, mixture
from distill.evaluate import Score
from distill.gate import let_teach, sign_test
from distill.model import load
from stillhouse.spec.errors import JobFailure
from tests.distill.conftest import digits, store
from tests.distill.test_run import Job

MLP: dict[str, Any] = {"architecture": {"name": "mlp", "hidden": [32]}, "epochs": 3}


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def drawn(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape) * 3


def test_a_mixture_is_the_weighted_mean_of_softened_distributions() -> None:
    a, b = drawn(5, 4), drawn(5, 4, seed=1)
    found = mixture([torch.from_numpy(a), torch.from_numpy(b)], weights=[3, 1], temperatures=[2.0, 5.0])
    expected = 0.75 * softmax(a / 2) + 0.25 * softmax(b / 5)
    assert np.allclose(found.exp().numpy(), expected, rtol=1e-12)


def test_a_mixture_as_logits_gives_that_mean_where_it_is_softened() -> None:
    class Fixed(nn.Module):
        def __init__(self, logits: np.ndarray) -> None:
            super().__init__()
            self.logits = torch.from_numpy(logits)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.logits

    a, b = drawn(5, 4), drawn(5, 4, seed=1)
    net = Mixture([Fixed(a), Fixed(b)], weights=[1, 1], temperatures=[4.0, 4.0], temperature=4.0)
    found = softmax(net(torch.zeros(5, 1)).numpy() / 4)
    assert np.allclose(found, (softmax(a / 4) + softmax(b / 4)) / 2, rtol=1e-12)


def test_a_mixture_of_bf16_logits_is_computed_in_fp32() -> None:
    a = torch.from_numpy(drawn(5, 4)).bfloat16()
    found = mixture([a, a], weights=[1, 1], temperatures=[1.0, 1.0])
    assert found.dtype == torch.float32
    assert torch.allclose(found, a.float().log_softmax(1), atol=1e-6)


def test_several_teachers_of_all_origins_teach_with_one_voice(digits_file: Path, tmp_path: Path) -> None:
    first = Job(digits_file, tmp_path / "first", teacher={"train": MLP})
    folder = tmp_path / "teachers" / "1"
    folder.mkdir(parents=True)
    for name, made in (("model.safetensors", "teacher.safetensors"), ("config.json", "teacher.json")):
        (folder / name).write_bytes((first.output / made).read_bytes())
    members = [{"train": MLP, "weight": 2}, {"model": "mdl_" + "0" * 26}, {"train": {**MLP, "epochs": 5}}]
    job = Job(digits_file, tmp_path / "out", io={"teacher": folder.parent}, teacher={"ensemble": {"members": members}})
    report = job.report
    assert report.models[0].architecture == "ensemble of " + ", ".join(["mlp 64-32-10"] * 3)
    assert report.models[0].parameters == 3 * first.report.models[0].parameters
    assert all(f"Member {i} (mlp 64-32-10) is right on" in job.lines() for i in range(3))
    assert all(0 < job.series(f"teacher{which}/validation_accuracy")[0] <= 1 for which in ("", "-0", "-1", "-2"))
    assert report.epochs_run["training_teacher-0"] == 3
    assert report.epochs_run["training_teacher-2"] == 5
    names = {path.name for path in job.output.glob("teacher*")}
    assert names == {f"teacher-{i}.{kind}" for i in (0, 2) for kind in ("safetensors", "json")}
    assert len(job.finished.teachers) == 2
    # Members of equal shape start from other seeds.
    assert (job.output / "teacher-0.safetensors").read_bytes() != (job.output / "teacher-2.safetensors").read_bytes()


def test_outputs_of_an_ensemble_are_kept_and_found_again_by_its_weights(digits_file: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()

    def lines(name: str, share: float) -> str:
        members = [{"train": MLP}, {"train": MLP, "weight": share}]
        spec = {"teacher": {"ensemble": {"members": members}}, "training": {"epochs": 1}}
        return Job(digits_file, tmp_path / name, io={"shelf": FolderShelf(cache)}, **spec).lines()

    assert "used again" not in lines("one", 1.0)
    assert "used again" in lines("again", 1.0)
    assert "used again" not in lines("other", 2.0)


def test_an_average_follows_the_student_by_its_formula() -> None:
    student = nn.BatchNorm1d(2)
    average, expected = Ema(student, 0.9), None
    for step in range(1, 20):
        with torch.no_grad():
            student.weight.copy_(torch.tensor([float(step), -1.0 / step]))
            student.running_mean.fill_(step)
        average.follow(student)
        value = np.array([float(step), -1.0 / step])
        share = min(0.9, 1 - 1 / step)
        expected = value if expected is None else share * expected + (1 - share) * value
        assert np.allclose(average.net.weight.numpy(), expected, atol=1e-6)
        assert average.net.running_mean.tolist() == [step, step]
    assert not average.net.training
    assert not any(p.requires_grad for p in average.net.parameters())


def test_a_decay_of_zero_is_the_student_itself(digits_file: Path, tmp_path: Path) -> None:
    job = Job(digits_file, tmp_path / "out", teacher={"ema": {"decay": 0.0}})
    assert (job.output / "teacher.safetensors").read_bytes() == (job.output / "model.safetensors").read_bytes()


def test_a_student_learns_from_its_own_average(digits_file: Path, tmp_path: Path) -> None:
    losses = [{"kind": "ce"}, {"kind": "kd", "weight": {"start": 0, "end": 1}}]
    spec = {"teacher": {"ema": {"decay": 0.95}}, "losses": losses, "training": {"epochs": 15}}
    job = Job(digits_file, tmp_path / "out", evaluation={"baseline": True}, **spec)
    teacher, student, baseline = job.report.models
    assert teacher.architecture == student.architecture
    assert teacher.accuracy > 0.85
    assert student.accuracy > 0.85
    # The teacher moves: at no step but the first does it say what the student says.
    assert all(value > 0 for value in job.series("distilling/loss_kd"))
    assert baseline.role == "baseline"
    assert not any("is not smaller" in line for line in job.report.warnings)
    again = Job(digits_file, tmp_path / "again", evaluation={"baseline": True}, **spec)
    assert (job.output / "model.safetensors").read_bytes() == (again.output / "model.safetensors").read_bytes()


def test_an_average_follows_through_stages_that_do_not_ask_it(digits_file: Path, tmp_path: Path) -> None:
    job = Job(digits_file, tmp_path / "out", teacher={"ema": {"decay": 0.0}}, losses=[{"kind": "ce"}])
    assert (job.output / "teacher.safetensors").read_bytes() == (job.output / "model.safetensors").read_bytes()


def test_an_average_teaches_the_layers_too_and_through_stages(digits_file: Path, tmp_path: Path) -> None:
    stages = [{"losses": [{"kind": "ce"}, {"kind": "similarity"}]}, {"losses": [{"kind": "kd"}]}]
    job = Job(digits_file, tmp_path / "out", teacher={"ema": {}}, stages=stages, student={"name": "cnn"})
    assert job.report.layer_pairs["similarity"][0].student == job.report.layer_pairs["similarity"][0].teacher


def test_the_sign_test_is_that_of_a_fair_coin() -> None:
    assert sign_test(0, 0) == 1
    assert sign_test(5, 0) == 1 / 32
    assert sign_test(8, 2) == (45 + 10 + 1) / 1024
    assert sign_test(3, 3) == pytest.approx(42 / 64)
    assert math.isclose(sign_test(60, 40), 0.028443966820490392, rel_tol=1e-12)  # scipy.stats.binomtest


def scored(right: int, rows: int) -> Score:
    given = torch.ones(rows, dtype=torch.int64)
    given[:right] = 0
    return Score(0.0, right, rows, given)


def test_a_teacher_may_be_worse_by_chance_but_no_more() -> None:
    labels = torch.zeros(100, dtype=torch.int64)
    let_teach(scored(90, 100), scored(80, 100), labels, split="validation")
    let_teach(scored(90, 100), scored(90, 100), labels, split="validation")
    let_teach(scored(90, 100), scored(94, 100), labels, split="validation")  # 4 : 0, 1 in 16
    with pytest.raises(JobFailure, match=r"95\.00% of 100 validation rows, the teacher on 90\.00%") as caught:
        let_teach(scored(90, 100), scored(95, 100), labels, split="validation")  # 5 : 0, 1 in 32
    assert caught.value.code == "teacher_too_weak"


WEAK: dict[str, Any] = {
    "teacher": {"train": {"architecture": {"name": "mlp", "hidden": [4]}, "epochs": 1, "learning_rate": 1e-5}},
    "training": {"epochs": 10},
}


def test_a_teacher_the_student_beats_alone_ends_the_job_before_anything_is_learnt(
    digits_file: Path, tmp_path: Path
) -> None:
    with pytest.raises(JobFailure, match="there is nothing to learn from it") as caught:
        Job(digits_file, tmp_path / "out", evaluation={"baseline": True}, **WEAK)
    assert caught.value.code == "teacher_too_weak"
    assert "teacher_gate: off" in caught.value.hint
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("evaluation", [{"baseline": True, "teacher_gate": "off"}, {"baseline": False}])
def test_the_gate_can_be_opened_and_needs_a_baseline(
    digits_file: Path, tmp_path: Path, evaluation: dict[str, Any]
) -> None:
    job = Job(digits_file, tmp_path / "out", evaluation=evaluation, **WEAK)
    assert job.report.models[1].role == "student"


def test_without_a_validation_split_teachers_are_judged_on_the_test_split(tmp_path: Path) -> None:
    x, y, split = digits()
    path = store(tmp_path / "data", x, y, np.where(split == 1, 0, split), tuple("0123456789"))
    with pytest.raises(JobFailure, match="of 270 test rows"):
        Job(path, tmp_path / "out", evaluation={"baseline": True}, **WEAK)


def test_the_kept_student_of_a_plain_job_can_be_loaded_beside_its_teacher(digits_file: Path, tmp_path: Path) -> None:
    job = Job(digits_file, tmp_path / "out")
    assert isinstance(load(job.output), nn.Module)
