"""Our own networks as ONNX, layer by layer: the same answers as torch, and torch's exporter for all others."""

from typing import Any

import onnx
import pytest
import torch
from torch import Tensor, nn

from distill.export.layers import UnknownLayerError, written
from distill.export.onnx import OPSET, check_standard, to_onnx
from distill.export.runtime import Session
from distill.students import build
from distill.students.cnn import GlobalAverage
from stillhouse.spec.events import ModelConfig
from stillhouse.spec.students import Cnn
from tests.distill.test_students import NETWORKS, images

FACTS = images(side=9, channels=3, classes=4)


def lived_in(net: nn.Module) -> nn.Module:
    """Batch norms with statistics and scales that are not those they start with."""
    torch.manual_seed(1)
    for name, value in net.state_dict().items():
        if value.ndim == 1 and value.is_floating_point():
            value.copy_(torch.rand(value.shape) + (0.5 if "weight" in name or "var" in name else -0.5))
    return net.eval()


def difference(content: bytes, net: nn.Module, x: Tensor) -> float:
    """The largest, as a share of the largest logit."""
    with torch.no_grad():
        ours = net(x)
    theirs = torch.from_numpy(Session(content)(x.numpy()))
    return float((ours - theirs).abs().max() / ours.abs().max())


@pytest.mark.parametrize("architecture", NETWORKS, ids=str)
def test_a_network_of_ours_is_written_without_torchs_exporter_and_answers_alike(
    architecture: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(torch.onnx, "export")
    net = lived_in(build(architecture, FACTS, [120.0, 100.0, 80.0], [60.0, 50.0, 40.0]))
    config = config_of(architecture)
    content = to_onnx(net, config)
    check_standard(content)
    for rows in (1, 5):
        assert difference(content, net, torch.rand(rows, 3, 9, 9) * 255) < 1e-5


def config_of(architecture: Any) -> ModelConfig:
    return ModelConfig(
        architecture=architecture, facts=FACTS, mean=[0.0] * 3, std=[1.0] * 3, parameters=1, preprocessing="Raw pixels."
    )


class Twice(nn.ReLU):
    """Not what its parent does."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * x


@pytest.mark.parametrize(
    "middle",
    [
        [nn.GELU()],
        [Twice()],
        [nn.BatchNorm2d(4), nn.BatchNorm2d(4)],
        [nn.ReLU(), nn.BatchNorm2d(4)],
        [nn.MaxPool2d(3, stride=2)],
        [nn.MaxPool2d(2, ceil_mode=True)],
        [nn.MaxPool2d(2, dilation=2)],
        [nn.Flatten(2, 3), nn.Unflatten(2, (7, 7))],
        [nn.Linear(7, 7, bias=False)],
        [nn.Conv2d(4, 4, 3, padding="same")],
        [nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect")],
        [nn.BatchNorm2d(4, affine=False)],
    ],
    ids=str,
)
def test_a_layer_without_a_rule_sends_the_network_to_torchs_exporter(middle: list[nn.Module]) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), *middle, GlobalAverage(), nn.Linear(4, 4)).eval()
    with pytest.raises(UnknownLayerError):
        written(net, FACTS.shape, 4, opset=OPSET)
    content = to_onnx(net, config_of(Cnn(name="cnn")))
    assert difference(content, net, torch.rand(5, 3, 9, 9)) < 1e-5


def test_convolutions_of_every_dial_are_written_as_they_are() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 6, (3, 1), stride=(2, 1), padding=(1, 0), bias=True),
        nn.BatchNorm2d(6),
        nn.Conv2d(6, 6, 3, padding=2, dilation=2, groups=3),
        GlobalAverage(),
        nn.Linear(6, 4),
    )
    content = to_onnx(lived_in(net), config_of(Cnn(name="cnn")))
    assert [node.op_type for node in onnx.load_from_string(content).graph.node][:2] == ["Conv", "Conv"]
    assert difference(content, net, torch.rand(5, 3, 9, 9)) < 1e-5
