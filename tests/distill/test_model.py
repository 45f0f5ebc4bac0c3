"""The files of a network: what is written can be read back, and nothing else is taken for a model."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from distill import load
from distill.data import measure, read_dataset
from distill.model import Model, digest, trained_model, weight_bytes
from distill.students import build
from stillhouse.spec.students import Cnn, Mlp, Resnet


def saved(folder: Path, digits_file: Path, architecture: Any) -> Model:
    """A network with trained-looking norms, saved as a job saves it."""
    data = read_dataset(digits_file)
    found = measure(data)
    torch.manual_seed(0)
    net = build(architecture, data.facts, found.mean, found.std)
    net(data.inputs(data.rows["train"][:64]))  # moves the running means of batch norm
    model = trained_model("student", net.eval(), architecture, data.facts, found)
    (folder / "model.safetensors").write_bytes(model.weights)
    (folder / "config.json").write_text(model.config.model_dump_json())
    return model


@pytest.mark.parametrize(
    "architecture", [Mlp(name="mlp"), Cnn(name="cnn"), Resnet(name="resnet", depth=8)], ids=lambda a: a.name
)
def test_a_saved_network_comes_back_bit_for_bit(tmp_path: Path, digits_file: Path, architecture: Any) -> None:
    model = saved(tmp_path, digits_file, architecture)
    back = load(tmp_path)
    x = torch.rand(9, 1, 8, 8) * 16
    assert isinstance(back, nn.Module)
    assert not back.training
    with torch.no_grad():
        assert torch.equal(back(x), model.net(x))
    assert weight_bytes(back) == model.weights
    assert sum(p.numel() for p in back.parameters()) == model.config.parameters


def test_a_loaded_network_outlives_its_files_and_can_be_trained_on(tmp_path: Path, digits_file: Path) -> None:
    saved(tmp_path, digits_file, Mlp(name="mlp"))
    net = load(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"")
    net.train()(torch.rand(2, 1, 8, 8)).sum().backward()
    assert all(p.grad is not None for p in net.parameters())


def test_loading_draws_no_random_numbers(tmp_path: Path, digits_file: Path) -> None:
    saved(tmp_path, digits_file, Resnet(name="resnet", depth=8))
    before = torch.get_rng_state()
    load(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_config_says_how_to_feed_the_network(tmp_path: Path, digits_file: Path) -> None:
    config = saved(tmp_path, digits_file, Mlp(name="mlp")).config
    assert "float32 of shape (N, 1, 8, 8)" in config.preprocessing
    assert "0 to 16" in config.preprocessing
    assert len(config.mean) == len(config.std) == 1


def test_the_same_weights_give_the_same_file(tmp_path: Path, digits_file: Path) -> None:
    model = saved(tmp_path, digits_file, Mlp(name="mlp"))
    assert weight_bytes(model.net) == model.weights
    assert digest(model.weights) == model.sha256


def _spoil_weights(folder: Path, **change: Any) -> None:
    tensors = {**load_file(folder / "model.safetensors"), **change}
    save_file({k: v for k, v in tensors.items() if v is not None}, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"network.1.weight": None}, "network.1.weight"),
        ({"teacher.weight": torch.zeros(1)}, "teacher.weight"),
        ({"network.1.weight": torch.zeros(3, 64)}, r"\[3, 64\]"),
        ({"network.1.bias": torch.zeros(64, dtype=torch.float16)}, "float16"),
        ({"network.1.bias": torch.full((64,), torch.nan)}, "NaN"),
        ({"network.1.bias": torch.tensor([0.0] * 63 + [-torch.inf])}, "infinity"),
    ],
)
def test_weights_that_do_not_fit_the_config_are_named(
    tmp_path: Path, digits_file: Path, change: dict[str, Any], found: str
) -> None:
    saved(tmp_path, digits_file, Mlp(name="mlp"))
    _spoil_weights(tmp_path, **change)
    with pytest.raises(ValueError, match=found):
        load(tmp_path)


def test_a_pickle_is_not_a_model(tmp_path: Path, digits_file: Path) -> None:
    saved(tmp_path, digits_file, Mlp(name="mlp"))
    torch.save({"network.1.weight": torch.zeros(64, 64)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="safetensors"):
        load(tmp_path)


def test_missing_and_foreign_files_are_named(tmp_path: Path, digits_file: Path) -> None:
    with pytest.raises(ValueError, match=r"config\.json"):
        load(tmp_path)
    saved(tmp_path, digits_file, Mlp(name="mlp"))
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "architecture": {"name": "os.system"}}))
    with pytest.raises(ValueError, match="not the config of a model"):
        load(tmp_path)
