"""A stored teacher that is damaged or put together from two is refused with what is wrong."""

import json
import sys
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save, save_file
from torch._export.serde.serialize import _SERIALIZE_TO_TORCH_DTYPE

from distill.teachers import load
from distill.teachers.exported_graph import DTYPES
from stillhouse.spec.teachers.config import STORED_CONFIG
from tests.distill.teachers.making import images, teacher

OPTIONS = {"architecture": "timm/resnet10t", "preprocessing": {"size": [32, 32], "scale": "dataset"}}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    teacher(save(timm.create_model("resnet10t", num_classes=3).state_dict()), tmp_path, **OPTIONS)
    return tmp_path / "teacher"


def test_the_brightest_value_of_the_dataset_is_the_scale(home: Path) -> None:
    dark, _ = load(home, white=16.0)
    bright, _ = load(home, white=255.0)
    x = images(3, 3, 32, 32)
    assert torch.allclose(dark(x / 255 * 16), bright(x), atol=1e-4)
    assert not torch.allclose(dark(x), bright(x), atol=1e-2)


def test_what_is_missing_is_named(home: Path) -> None:
    (home / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"model\.safetensors is missing"):
        load(home)
    (home / "config.json").unlink()
    with pytest.raises(ValueError, match=r"config\.json is missing"):
        load(home)


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"format": "stillhouse-teacher/9"}', '{"format": "stillhouse-teacher/1"}']
)
def test_a_config_that_is_none_is_refused(text: str, home: Path) -> None:
    (home / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"config\.json is no config"):
        load(home)


def test_damaged_weights_are_refused(home: Path) -> None:
    path = home / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        load(home)


def test_weights_of_another_network_are_refused(home: Path) -> None:
    state = load_file(home / "model.safetensors")
    state["more"] = torch.ones(1)
    save_file(state, home / "model.safetensors")
    with pytest.raises(ValueError, match="has no 'more'"):
        load(home)
    config = json.loads((home / "config.json").read_text())
    config["network"]["architecture"] = "resnet18"
    (home / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="lacks"):
        load(home)
    config["network"]["architecture"] = "no_such_net"
    (home / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="do not belong together"):
        load(home)


def test_a_library_that_is_not_there_is_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match="timm is not installed on this worker"):
        load(home)


def test_a_config_survives_its_own_json(home: Path) -> None:
    text = (home / "config.json").read_bytes()
    assert STORED_CONFIG.validate_json(
        STORED_CONFIG.validate_json(text).model_dump_json()
    ) == STORED_CONFIG.validate_json(text)


def test_the_numbers_of_types_are_torchs_own() -> None:
    assert {number: _SERIALIZE_TO_TORCH_DTYPE[number] for number in DTYPES} == DTYPES
