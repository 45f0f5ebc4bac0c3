"""Networks of timm by name: the table the API answers from, the networks it stands for, and their way to a student."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from distill import RunIO, load, run
from distill.data import read_dataset
from distill.evaluate import score
from distill.export.onnx import to_onnx
from distill.export.runtime import Session
from distill.model import weight_bytes
from distill.students import build
from distill.students.from_timm import Enlarge, make_ready
from distill.students.timm_catalogue import COLUMNS, TABLE, measured
from stillhouse.spec import DataFacts
from stillhouse.spec.errors import JobFailure
from stillhouse.spec.events import ModelConfig
from stillhouse.spec.students import Architecture, Timm
from stillhouse.spec.students.timm import TimmFacts, timm_architectures
from tests.distill.conftest import resolved

COLOUR = DataFacts(
    task="image-classification",
    shape=(3, 32, 32),
    dtype="uint8",
    classes=tuple("0123456789"),
    rows={"train": 1, "validation": 0, "test": 1},
)
GRAY = COLOUR.model_copy(update={"shape": (1, 8, 8), "classes": ("a", "b", "c")})


def named(architecture: str, **dials: Any) -> Timm:
    return Timm(name="timm", architecture=architecture, **dials)


def network(architecture: Architecture, facts: DataFacts) -> nn.Module:
    torch.manual_seed(0)
    channels = facts.shape[0]
    return build(architecture, facts, [100.0] * channels, [50.0] * channels)


def test_the_table_is_of_this_timm_and_holds_nearly_all_its_names() -> None:
    table = json.loads(TABLE.read_text())
    again = "run python -m distill.students.timm_catalogue"
    assert table["timm"] == timm.__version__, again
    assert tuple(table["columns"]) == COLUMNS == TimmFacts._fields, again
    names, known = set(timm.list_models()), set(timm_architectures())
    assert known <= names, again
    # What has no classifier of 1,000 classes is left out.
    assert len(known) > 0.9 * len(names)


@pytest.mark.parametrize("name", ["test_vit", "mobilenetv3_small_050", "convnext_atto", "swin_tiny_patch4_window7_224"])
def test_a_line_of_the_table_is_what_timm_builds(name: str) -> None:
    row = measured(name)
    assert row is not None
    assert TimmFacts(*row) == timm_architectures()[name]


@pytest.mark.parametrize(
    ("architecture", "facts"),
    [
        (named("resnet18"), GRAY),
        (named("test_vit"), COLOUR),
        (named("test_vit", input_size=48), GRAY),
        (named("vit_tiny_patch16_224"), COLOUR),
        (named("convnext_atto", input_size=32), GRAY),
        (named("mobilenetv3_small_050"), COLOUR),
        (named("efficientnet_b0"), GRAY),
    ],
    ids=lambda value: value.architecture if isinstance(value, Timm) else "x".join(map(str, value.shape)),
)
def test_parameters_and_bytes_are_those_of_the_network_for_other_data(architecture: Timm, facts: DataFacts) -> None:
    assert architecture.misfit(facts) is None
    net = network(architecture, facts)
    assert sum(p.numel() for p in net.parameters()) == architecture.parameters(facts)
    said, found = architecture.file_bytes(facts), len(weight_bytes(net))
    assert 0 <= said - found <= 64 * (len(net.state_dict()) + 1)


@pytest.mark.parametrize(
    "architecture",
    [
        named("test_resnet"),
        named("test_efficientnet"),
        named("test_convnext"),
        named("test_vit", input_size=48),
        named("mobilenetv3_small_050"),
    ],
    ids=str,
)
def test_the_exported_network_gives_the_same_logits(architecture: Timm) -> None:
    net = network(architecture, COLOUR)
    make_ready(net, architecture, COLOUR)
    config = ModelConfig(
        architecture=architecture, facts=COLOUR, mean=[], std=[], parameters=0, preprocessing="Feed raw pixels."
    )
    session, x = Session(to_onnx(net, config)), torch.rand(3, 3, 32, 32) * 255
    with torch.no_grad():
        ours = net.eval()(x)
    assert ours.shape == (3, 10)
    for rows in (x, x[:1]):
        assert torch.allclose(torch.from_numpy(session(rows.numpy())), ours[: len(rows)], atol=1e-4)


def test_enlarging_keeps_a_flat_image_flat_and_the_middle_in_the_middle() -> None:
    assert torch.allclose(Enlarge(5)(torch.full((1, 2, 2, 3), 7.0)), torch.full((1, 2, 5, 5), 7.0))
    ramp = Enlarge(4)(torch.tensor([[[[0.0, 4.0], [0.0, 4.0]]]]))
    assert ramp[0, 0, 0].tolist() == [0.0, 1.0, 3.0, 4.0]


def test_trying_a_network_leaves_its_buffers_and_the_random_stream_as_they_were() -> None:
    net = nn.Sequential(network(named("test_resnet"), COLOUR), nn.Dropout(0.5))
    before, stream = {k: v.clone() for k, v in net.state_dict().items()}, torch.get_rng_state()
    make_ready(net, named("test_resnet"), COLOUR)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), stream)


def test_an_image_that_is_too_small_ends_the_job_with_the_way_out() -> None:
    small = COLOUR.model_copy(update={"shape": (3, 8, 8)})
    with pytest.raises(JobFailure) as caught:
        make_ready(network(named("convnext_atto"), small), named("convnext_atto"), small)
    assert caught.value.code == "student_unusable"
    assert "3×8×8" in caught.value.detail
    assert "input_size" in caught.value.hint


class Hub:
    """The Hugging Face Hub as far as it is asked here: not ours, and not there without a network."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, answer: Path | Exception) -> None:
        self.asked: list[tuple[str, str]] = []
        self.tokens: list[str | None] = []
        self._answer = answer
        monkeypatch.setattr("huggingface_hub.hf_hub_download", self.download)

    def download(self, repository: str, file: str, *, token: str | None, **place: object) -> str:
        assert place == {"endpoint": None, "cache_dir": None}
        self.asked.append((repository, file))
        self.tokens.append(token)
        if isinstance(self._answer, Exception):
            raise self._answer
        return str(self._answer)


def test_weights_are_never_asked_for_unless_the_spec_does(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub(monkeypatch, AssertionError("nobody may ask"))
    make_ready(network(named("test_resnet"), COLOUR), named("test_resnet"), COLOUR)
    asks = named("test_resnet", pretrained=True)
    network(asks, COLOUR)  # building is not starting: a trained model is built before its own weights are loaded
    assert hub.asked == []


def test_published_weights_are_fitted_to_the_channels_and_classes_of_the_data(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    published = timm.create_model("test_resnet", num_classes=1000)
    save_file(published.state_dict(), tmp_path / "model.safetensors")
    hub = Hub(monkeypatch, tmp_path / "model.safetensors")
    architecture = named("test_resnet", pretrained=True, input_size=32)
    net = network(architecture, GRAY)
    make_ready(net, architecture, GRAY)
    assert [file for _, file in hub.asked] == ["model.safetensors"]
    theirs = published.get_parameter("layer1.0.conv1.weight")
    assert torch.equal(net.get_parameter("network.1.layer1.0.conv1.weight"), theirs)
    assert net(torch.zeros(2, 1, 8, 8)).shape == (2, 3)


@pytest.mark.parametrize("trouble", ["offline", "pickle", "misfit", "damaged"])
def test_weights_that_cannot_be_had_are_a_failure_of_their_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, trouble: str
) -> None:
    file = tmp_path / ("model.bin" if trouble == "pickle" else "model.safetensors")
    file.write_bytes(b"no weights")
    if trouble == "misfit":
        save_file({"layer": torch.zeros(3)}, file)
    Hub(monkeypatch, OSError("no route to the hub") if trouble == "offline" else file)
    architecture = named("test_resnet", pretrained=True)
    with pytest.raises(JobFailure) as caught:
        make_ready(network(architecture, COLOUR), architecture, COLOUR)
    assert caught.value.code == "weights_unavailable"
    assert "test_resnet" in caught.value.detail
    assert "Leave pretrained out" in caught.value.hint
    assert str(tmp_path) not in caught.value.detail


def test_a_job_distils_into_a_network_of_timm_and_the_student_loads_again(digits_file: Path, tmp_path: Path) -> None:
    spec = resolved(
        digits_file,
        student={"name": "timm/test_vit", "input_size": 16},
        training={"epochs": 2},
    )
    finished = run(spec, RunIO(digits_file, None, tmp_path, threads=1), lambda event: None)
    student = finished.report.models[1]
    assert student.architecture == "timm test_vit at 16 px"
    assert (
        student.parameters
        == finished.student.parameters
        == named("test_vit", input_size=16).parameters(finished.student.facts)
    )
    assert student.accuracy > 0.3
    assert score(load(tmp_path), read_dataset(digits_file), "test").accuracy == student.accuracy


def test_timm_is_imported_only_by_a_job_that_names_it() -> None:
    code = "import sys, distill, distill.warm; print('timm' in sys.modules or 'timm' in distill.warm._MODULES)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
