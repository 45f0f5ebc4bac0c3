"""Every registered loss through a whole job on real digits, and what must not follow from its being there."""

import hashlib
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from distill import RunIO, run
from distill.data import read_dataset
from distill.losses import LOSSES, Objective
from distill.optimisation import optimizer
from distill.taps import Outputs, Pair, Point, outputs
from distill.train import Teaching, fit
from stillhouse.spec.errors import JobFailure
from stillhouse.spec.events import Finished, MetricPoint, Metrics
from stillhouse.spec.losses import Crd, Fitnet, Kd, Vid
from tests.distill.conftest import resolved
from tests.distill.test_train import STAGE, Log, network

MAPS_ONLY = {kind for kind in LOSSES.names() if LOSSES[kind].needs == "maps"}
CNN: dict[str, Any] = {
    "teacher": {"train": {"architecture": {"name": "cnn", "channels": [8, 12, 16]}, "epochs": 2}},
    "student": {"name": "cnn", "channels": [4, 8]},
}
MLP: dict[str, Any] = {
    "teacher": {"train": {"architecture": {"name": "mlp", "hidden": [48, 32]}, "epochs": 2}},
    "student": {"name": "mlp", "hidden": [16]},
}


def job(digits_file: Path, output: Path, **spec: Any) -> tuple[Finished, list[MetricPoint]]:
    output.mkdir(exist_ok=True)
    points: list[MetricPoint] = []
    finished = run(
        resolved(digits_file, **{"training": {"epochs": 2}, **spec}),
        RunIO(digits_file, None, output, threads=1),
        lambda event: points.extend(event.points) if isinstance(event, Metrics) else None,
    )
    return finished, points


def beside_ce(*kinds: str) -> list[dict[str, str]]:
    return [{"kind": kind} for kind in dict.fromkeys((*kinds, "ce"))]


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


@pytest.mark.parametrize("kind", LOSSES.names())
@pytest.mark.parametrize("networks", [CNN, MLP], ids=["cnn", "mlp"])
def test_every_loss_distils_digits_and_leaves_a_student_of_its_own_weights_alone(
    digits_file: Path, tmp_path: Path, kind: str, networks: dict[str, Any]
) -> None:
    if networks is MLP and kind in MAPS_ONLY:
        with pytest.raises(JobFailure, match="compares maps") as failure:
            job(digits_file, tmp_path, losses=beside_ce(kind), **networks)
        assert failure.value.code == "layer_mismatch"
        return
    finished, points = job(digits_file, tmp_path, losses=beside_ce(kind), **networks)
    series = [p.value for p in points if p.name == f"distilling/loss_{kind}"]
    assert len(series) == 2
    assert all(map(math.isfinite, series))
    weights = load_file(tmp_path / "model.safetensors")
    assert all(value.isfinite().all() for value in weights.values())
    data = read_dataset(digits_file)
    assert weights.keys() == network(data, finished.student.architecture).state_dict().keys()
    assert finished.report.models[1].parameters == finished.student.architecture.parameters(data.facts)
    assert set(finished.report.layer_pairs) == ({kind} if LOSSES[kind].auto_layers else set())


# crd starts against a memory of noise: it rises before it falls.
@pytest.mark.parametrize("kind", [kind for kind in LOSSES.names() if LOSSES[kind].auto_layers and kind != "crd"])
def test_a_loss_on_layers_falls_when_it_is_trained(digits_file: Path, tmp_path: Path, kind: str) -> None:
    _, points = job(digits_file, tmp_path, losses=beside_ce(kind), training={"epochs": 5}, **CNN)
    series = [p.value for p in points if p.name == f"distilling/loss_{kind}"]
    assert series[-1] < series[0]


def test_layers_may_be_named_and_losses_of_all_families_summed(digits_file: Path, tmp_path: Path) -> None:
    layers = [{"student": "network.2", "teacher": "network.6"}, {"student": "network.6", "teacher": "network.9"}]
    losses = [{"kind": "kd"}, {"kind": "ce"}, {"kind": "rkd"}, {"kind": "crd"}, {"kind": "fitnet", "layers": layers}]
    finished, points = job(digits_file, tmp_path, losses=losses, **CNN)
    named = [{"student": p.student, "teacher": p.teacher} for p in finished.report.layer_pairs["fitnet"]]
    assert named == layers
    last = {p.name.removeprefix("distilling/"): p.value for p in points if p.name.startswith("distilling/loss")}
    weights = {"kd": 0.9, "ce": 0.1, "rkd": 1.0, "crd": 0.8, "fitnet": 1.0}
    assert last["loss"] == pytest.approx(sum(w * last[f"loss_{kind}"] for kind, w in weights.items()))


def test_the_same_job_twice_gives_the_same_bits_and_the_baseline_never_changes(
    digits_file: Path, tmp_path: Path
) -> None:
    losses = beside_ce("crd", "vid", "fitnet")
    networks = {**CNN, "evaluation": {"baseline": True}}
    runs = [job(digits_file, tmp_path / name, losses=losses, **networks)[0] for name in ("a", "b")]
    assert digest(tmp_path / "a") == digest(tmp_path / "b")
    other = job(digits_file, tmp_path / "c", losses=beside_ce("kd"), **networks)[0]
    assert digest(tmp_path / "c") != digest(tmp_path / "a")
    for role in ("teacher", "baseline"):
        assert runs[0].report.of(role) == other.report.of(role)


def test_a_weight_of_nothing_leaves_the_student_as_the_other_losses_make_it(digits_file: Path, tmp_path: Path) -> None:
    # The teacher is live in one job and cached in the other, and a projector trains beside one of the students.
    silent = [{"kind": "fitnet", "weight": 0.0}, {"kind": "kd", "weight": 0.5}]
    job(digits_file, tmp_path / "a", losses=silent, **MLP)
    job(digits_file, tmp_path / "b", losses=[{"kind": "kd", "weight": 0.5}], **MLP)
    a, b = (load_file(tmp_path / name / "model.safetensors") for name in ("a", "b"))
    assert all(torch.allclose(a[name], b[name], rtol=1e-3, atol=1e-4) for name in a)


@pytest.mark.usefixtures("bf16_everywhere")
def test_losses_on_layers_work_under_augmentation_finetuning_and_bf16(digits_file: Path, tmp_path: Path) -> None:
    training = {"epochs": 2, "precision": "bf16", "augmentation": {"crop_padding": 1}}
    finished, points = job(
        digits_file, tmp_path, losses=beside_ce("review", "crd"), training=training, finetune={"epochs": 1}, **CNN
    )
    assert finished.report.epochs_run["finetuning"] == 1
    assert not [p for p in points if p.name.startswith("finetuning/loss_review")]
    assert all(value.isfinite().all() for value in load_file(tmp_path / "model.safetensors").values())


def test_batch_norm_inside_a_loss_never_meets_a_single_row(digits_file: Path, tmp_path: Path) -> None:
    # 1,257 = 157 × 8 + 1, on a student without batch norm of its own.
    training = {"epochs": 1, "batch_size": 8}
    _, points = job(digits_file, tmp_path, losses=beside_ce("review"), training=training, **MLP)
    assert all(math.isfinite(p.value) for p in points)


PAIRS = {kind: (Pair(Point("network.2", (16,)), Point("network.4", (32,))),) for kind in ("fitnet", "vid", "crd")}


def objective(seed: int = 0, stream: str = "student") -> Objective:
    losses = (Fitnet(kind="fitnet", weight=1.0), Vid(kind="vid", weight=1.0), Crd(kind="crd", weight=1.0))
    return Objective(losses, pairs=PAIRS, labels=torch.arange(20) % 3, seed=seed, stream=stream)


def flat(module: nn.Module) -> torch.Tensor:
    return torch.cat([value.flatten().double() for value in module.parameters()])


def test_projectors_start_from_the_seed_and_the_stream_and_nothing_else() -> None:
    first = flat(objective())
    torch.rand(3)
    before = torch.get_rng_state()
    assert torch.equal(flat(objective()), first)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(flat(objective(seed=1)), first)
    assert not torch.equal(flat(objective(stream="finetune")), first)
    # Alone or beside others, a loss starts alike.
    alone = Objective((Vid(kind="vid", weight=1.0),), pairs=PAIRS)
    assert torch.equal(flat(alone), flat(objective().terms["vid"]))


def test_projectors_train_in_groups_of_their_own_with_decay_for_matrices_alone(digits_file: Path) -> None:
    net, beside = network(read_dataset(digits_file)), objective()
    groups = optimizer(net, "adamw", beside, weight_decay=0.1, momentum=0.0).param_groups
    found = [(group["weight_decay"], len(group["params"])) for group in groups]
    assert found == [(0.1, 2), (0.0, 2), (0.1, 6), (0.0, 4)]
    plain = optimizer(net, "adamw", Objective((Kd(kind="kd", weight=1.0),)), weight_decay=0.1, momentum=0.0)
    assert len(plain.param_groups) == 2


def test_a_stage_names_what_it_watches_and_a_student_keeps_no_hook(digits_file: Path) -> None:
    data = read_dataset(digits_file)
    net, teacher = network(data), network(data, seed=1)
    pair = Pair(Point("network.2", (16,)), Point("network.2", (16,)))
    stage = replace(STAGE, losses=(Fitnet(kind="fitnet", weight=1.0),), epochs=1, pairs={"fitnet": (pair,)})

    def teaching(batch: torch.Tensor, x: torch.Tensor, epoch: int) -> Outputs:
        with torch.no_grad():
            return outputs(teacher, x, ["network.2"])

    log = Log()
    last = net.get_submodule("network.3")
    before = {name: value.clone() for name, value in last.state_dict().items()}
    fit(net, [stage], data, Teaching(teaching), log.reporter)
    assert not any(module._forward_hooks for module in net.modules())
    assert all(torch.equal(value, before[name]) for name, value in last.state_dict().items()), "a hint stops below"
    assert log.series("distilling/loss_fitnet")[0] > 0
