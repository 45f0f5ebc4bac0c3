"""The folder of a finished job, from this installation or another, can teach."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save

from distill.data import Statistics
from distill.model import CONFIG, WEIGHTS, Model, trained_model
from distill.students import build
from stillhouse.spec import DataFacts
from stillhouse.spec.events import ModelConfig
from stillhouse.spec.limits import Limits
from stillhouse.spec.students import Cnn, Mlp
from tests.distill.teachers.making import archive, images, refused, teacher

FACTS = DataFacts(
    task="image-classification", shape=(3, 8, 8), dtype="uint8", classes=("a", "b", "c"), rows={"train": 9}
)


def made() -> Model:
    torch.manual_seed(0)
    net = build(Cnn(name="cnn", channels=(4, 8)), FACTS, [100.0] * 3, [50.0] * 3).eval()
    statistics = Statistics([100.0] * 3, [50.0] * 3, 0, 255)
    return trained_model("student", net, Cnn(name="cnn", channels=(4, 8)), FACTS, statistics)


def packed(model: Model, **changes: Any) -> bytes:
    config = json.loads(model.config.model_dump_json()) | changes
    return archive(
        {f"bundle/{CONFIG}": json.dumps(config), f"bundle/{WEIGHTS}": model.weights, "bundle/report.json": "{}"}
    )


def test_a_job_of_another_installation_teaches_here(tmp_path: Path) -> None:
    model = made()
    module, checked = teacher(packed(model), tmp_path)
    assert checked.format == "stillhouse"
    assert checked.config == ModelConfig.model_validate(json.loads(model.config.model_dump_json()))
    assert checked.sha256 == model.sha256
    x = images(5, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(module(x), model.net(x))
    assert not any(p.requires_grad for p in module.parameters())


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "stillhouse-model/9"},
        {"architecture": {"name": "evil"}},
        {"mean": [1.0]},
        {"std": []},
        {"facts": {}},
        {"facts": json.loads(FACTS.model_copy(update={"shape": (3, 0, 8)}).model_dump_json())},
        {"facts": json.loads(FACTS.model_copy(update={"shape": (3, 2**20, 2**20)}).model_dump_json())},
        {"architecture": {"name": "cnn", "channels": [4, 9]}},
        {"architecture": {"name": "timm", "architecture": "vit_tiny_patch16_224"}},
    ],
)
def test_a_config_that_is_none_or_of_other_weights_is_refused(changes: dict[str, Any], tmp_path: Path) -> None:
    assert refused(packed(made(), **changes), tmp_path).errors[0].code == "corrupt_config"


def test_a_config_of_a_huge_network_is_refused_before_it_is_built(tmp_path: Path) -> None:
    wide = {"name": "mlp", "hidden": [8192] * 8}
    assert Mlp.model_validate(wide).parameters(FACTS) > 400_000_000
    error = refused(packed(made(), architecture=wide), tmp_path, Limits(max_teacher_parameters=400_000_000))
    assert error.errors[0].code == "too_many_parameters"


def test_nan_and_damage_in_the_weights_are_refused(tmp_path: Path) -> None:
    model = made()
    state = load(model.weights)
    name = next(name for name in state if name.endswith("weight"))
    state[name].view(-1)[0] = torch.nan
    broken = archive({CONFIG: model.config.model_dump_json(), WEIGHTS: save(state)})
    assert refused(broken, tmp_path).errors[0].code == "weights_not_finite"
    cut = archive({CONFIG: model.config.model_dump_json(), WEIGHTS: model.weights[:-1]})
    assert refused(cut, tmp_path).errors[0].code == "corrupt_tensors"


@pytest.mark.parametrize(
    "options", [{"classes": ["x", "y", "z"]}, {"shape": [3, 8, 8]}, {"preprocessing": {"scale": 255}}]
)
def test_its_config_says_everything(options: dict[str, Any], tmp_path: Path) -> None:
    assert refused(packed(made()), tmp_path, **options).errors[0].code == "option_does_not_apply"
