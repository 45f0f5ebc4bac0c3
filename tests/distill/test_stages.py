"""Stages of training with losses, frozen layers and moving dials of their own."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from distill.data import Dataset, read_dataset
from distill.losses import Batch, Objective, Targets
from distill.losses.kd import kd
from distill.taps import Outputs
from distill.train import Teaching, fit
from stillhouse.spec.errors import JobFailure
from stillhouse.spec.losses import Ce, Kd, TemperatureRamp, WeightRamp
from stillhouse.spec.students import Cnn
from tests.distill.conftest import resolved
from tests.distill.test_run import Job
from tests.distill.test_train import STAGE, Log, network

CNN: dict[str, Any] = {
    "teacher": {"train": {"architecture": {"name": "cnn", "channels": [8, 16]}, "epochs": 2}},
    "student": {"name": "cnn", "channels": [4, 8]},
}


@pytest.fixture(scope="module")
def data(digits_file: Path) -> Dataset:
    return read_dataset(digits_file)


def constant(teacher: torch.Tensor) -> Teaching:
    return Teaching(lambda batch, x, epoch: Outputs(teacher[batch]))


def test_hints_then_soft_targets_then_labels(digits_file: Path, tmp_path: Path) -> None:
    stages = [
        {"name": "hints", "losses": [{"kind": "fitnet"}], "epochs": 2},
        {"losses": [{"kind": "kd"}, {"kind": "fitnet", "weight": 0.1}], "epochs": 8, "learning_rate": 0.02},
        {"losses": [{"kind": "ce"}], "epochs": 1, "learning_rate": 0.0001, "freeze": ["network.0"]},
    ]
    job = Job(digits_file, tmp_path / "out", stages=stages, evaluation={"baseline": True, "teacher_gate": "off"}, **CNN)
    ran = job.report.epochs_run
    assert ran == {
        "training_teacher": 2,
        "training_baseline": 11,
        "distilling-0": 2,
        "distilling-1": 8,
        "finetuning": 1,
    }
    assert job.phases().count("distilling") == 2
    assert job.series("distilling-1/learning_rate")[0] < 0.02
    assert len(job.series("distilling-0/loss_fitnet")) == 2
    assert job.series("distilling-0/loss_kd") == []
    assert set(job.report.layer_pairs) == {"fitnet"}
    assert job.report.models[1].accuracy > 0.5


def test_one_stage_is_the_plain_job_bit_for_bit(digits_file: Path, tmp_path: Path) -> None:
    losses = [{"kind": "kd"}, {"kind": "ce"}]
    plain = Job(digits_file, tmp_path / "plain", losses=losses)
    staged = Job(digits_file, tmp_path / "staged", stages=[{"losses": losses}])
    weights = [(job.output / "model.safetensors").read_bytes() for job in (plain, staged)]
    assert weights[0] == weights[1]


def test_the_same_loss_on_other_layers_in_another_stage_is_reported_apart(digits_file: Path, tmp_path: Path) -> None:
    def hint(path: str) -> dict[str, Any]:
        return {"kind": "fitnet", "layers": [{"student": path, "teacher": path}]}

    stages = [{"losses": [hint(p), {"kind": "kd"}], "epochs": 1} for p in ("network.2", "network.5")]
    job = Job(digits_file, tmp_path / "out", stages=stages, **CNN)
    assert [pair.student for pair in job.report.layer_pairs["fitnet"]] == ["network.2"]
    assert [pair.student for pair in job.report.layer_pairs["fitnet, stage 2"]] == ["network.5"]


def test_frozen_layers_stay_as_they_are_with_all_they_count(data: Dataset) -> None:
    net = network(data, Cnn(name="cnn", channels=(4, 8)))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    first, norm = "network.0", "network.1"
    assert isinstance(net.get_submodule(norm), nn.BatchNorm2d)
    fit(net, [replace(STAGE, freeze=(first, norm), epochs=1)], data, None, Log().reporter)
    changed = {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}
    assert not any(name.startswith((f"{first}.", f"{norm}.")) for name in changed)
    assert any(name.startswith("network.4") for name in changed)
    assert all(p.requires_grad for p in net.parameters())


def test_a_layer_to_freeze_that_does_not_exist_is_answered_with_close_names(digits_file: Path, tmp_path: Path) -> None:
    stages = [{"losses": [{"kind": "kd"}], "freeze": ["network.O"]}]
    with pytest.raises(JobFailure, match=r"stages/0/freeze names the layer 'network\.O'") as caught:
        Job(digits_file, tmp_path / "out", stages=stages)
    assert caught.value.code == "layer_unknown"
    assert "network.0" in caught.value.hint
    assert list((tmp_path / "out").iterdir()) == []


def test_a_stage_that_freezes_everything_has_nothing_to_train(digits_file: Path, tmp_path: Path) -> None:
    stages = [{"losses": [{"kind": "kd"}]}, {"losses": [{"kind": "ce"}], "freeze": ["network"]}]
    with pytest.raises(JobFailure, match="stages/1/freeze leaves no layer") as caught:
        Job(digits_file, tmp_path / "out", stages=stages)
    assert caught.value.code == "layer_mismatch"


def batch(done: float) -> Batch:
    draws = torch.Generator().manual_seed(3)
    student, teacher = (torch.randn(6, 4, generator=draws, dtype=torch.float64) for _ in range(2))
    labels = torch.tensor([0, 1, 2, 3, 0, 1])
    return Batch(Outputs(student), Outputs(teacher), Targets(labels), torch.arange(6), done=done)


@pytest.mark.parametrize("done", [0.0, 0.3, 1.0])
def test_moving_weights_and_temperatures_are_read_at_the_step(done: float) -> None:
    ramp, heat = WeightRamp(start=2.0, end=0.0), TemperatureRamp(start=8.0, end=1.0)
    losses = (Kd(kind="kd", weight=ramp, temperature=heat), Ce(kind="ce", weight=0.5))
    given = batch(done)
    total, parts = Objective(losses)(given)
    assert given.teacher is not None
    soft = kd(given.student.logits, given.teacher.logits, temperature=8 - 7 * done)
    hard = nn.functional.cross_entropy(given.student.logits, given.targets.labels)
    assert parts["kd"].item() == pytest.approx(soft.item(), rel=1e-12)
    assert total.item() == pytest.approx((2 - 2 * done) * soft.item() + 0.5 * hard.item(), rel=1e-12)


def test_dials_that_move_are_reported_and_weigh_the_reported_sum(data: Dataset) -> None:
    teacher = torch.randn(1257, 10, generator=torch.Generator().manual_seed(0))
    ramp = WeightRamp(start=1.0, end=0.0)
    losses = (Kd(kind="kd", weight=ramp, temperature=TemperatureRamp(start=4.0, end=2.0)), Ce(kind="ce", weight=0.0))
    # One step an epoch: the mean over the epoch is the value at that step.
    stage = replace(STAGE, losses=losses, epochs=4, batch_size=2048)
    log = Log()
    fit(network(data), [stage], data, constant(teacher), log.reporter)
    assert log.series("distilling/weight_kd") == [1.0, 0.75, 0.5, 0.25]
    assert log.series("distilling/temperature_kd") == [4.0, 3.5, 3.0, 2.5]
    soft = log.series("distilling/loss_kd")
    assert log.series("distilling/loss") == pytest.approx(
        [w * x for w, x in zip((1, 0.75, 0.5, 0.25), soft, strict=True)]
    )


def test_a_temperature_that_moves_nowhere_gives_the_bits_of_one_that_stands(digits_file: Path, tmp_path: Path) -> None:
    still = Job(digits_file, tmp_path / "still", temperature=3)
    ramp = Job(digits_file, tmp_path / "ramp", temperature={"start": 3, "end": 3})
    assert (still.output / "model.safetensors").read_bytes() == (ramp.output / "model.safetensors").read_bytes()


def test_small_students_are_warned_of_the_temperature_a_ramp_ends_at(digits_file: Path, tmp_path: Path) -> None:
    cooled = Job(digits_file, tmp_path / "cooled", temperature={"start": 20, "end": 2})
    heated = Job(digits_file, tmp_path / "heated", temperature={"start": 2, "end": 20})
    assert not any("small students" in line for line in cooled.report.warnings)
    assert any("temperature is 20" in line for line in heated.report.warnings)


def test_stages_of_a_resolved_spec_are_what_runs(digits_file: Path) -> None:
    stages = [{"losses": [{"kind": "kd"}]}, {"losses": [{"kind": "ce"}]}]
    spec = resolved(digits_file, stages=stages, training={"epochs": 10})
    assert [stage.epochs for stage in spec.plan()] == [5, 5]
