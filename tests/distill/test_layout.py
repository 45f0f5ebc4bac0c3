"""How tensors lie in memory makes a job faster; it changes no result beyond rounding, and no file."""

import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnxruntime import InferenceSession
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from distill import RunIO, run
from distill.data import read_dataset
from distill.device import heap_kept
from distill.export.layers import written
from distill.model import load, weight_bytes
from distill.reporter import Reporter
from distill.stages import stage_of
from distill.students import build, channels_last
from distill.train import fit
from stillhouse.spec.losses import Ce
from stillhouse.spec.states import Phase
from stillhouse.spec.students import Cnn, Mobilenet, Resnet
from tests.distill.conftest import resolved, store

NETWORKS = [
    Cnn(name="cnn", channels=(8, 16)),
    Resnet(name="resnet", depth=8, width=6),
    Resnet(name="resnet", depth=18, width=4),
    Mobilenet(name="mobilenet", width=0.25, depth=1),
]


@pytest.fixture(scope="module")
def colour_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hundred small images in colour of two classes, one of them redder."""
    stream = np.random.default_rng(5)
    y = np.arange(140) % 2
    x = stream.integers(0, 200, size=(140, 3, 8, 8)).astype(np.uint8)
    x[y == 1, 0] += 55
    split = np.repeat(np.array([0, 1, 2], np.uint8), [100, 20, 20])
    return store(tmp_path_factory.mktemp("colour") / "colour.safetensors", x, y, split, ("gray", "red"))


def plain(net: nn.Module) -> nn.Module:
    """The network as torch makes it by itself."""
    return net.to(memory_format=torch.contiguous_format)


def built(architecture: object, path: Path) -> nn.Module:
    torch.manual_seed(2)
    return build(architecture, read_dataset(path).facts, [120.0] * 3, [60.0] * 3)  # type: ignore[arg-type]


@pytest.mark.parametrize("architecture", NETWORKS, ids=lambda net: f"{net.name}-{getattr(net, 'depth', '')}")
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_training_ends_at_the_weights_of_the_usual_layout_up_to_rounding(
    architecture: object, optimizer: str, colour_file: Path
) -> None:
    data = read_dataset(colour_file)
    spec = resolved(
        colour_file,
        training={"epochs": 2, "optimizer": optimizer, "learning_rate": 0.001},
        student={"name": "cnn"},
    )
    ends = []
    for net in (built(architecture, colour_file), plain(built(architecture, colour_file))):
        stage = stage_of(spec.training, phase=Phase.DISTILLING, stream="x", losses=(Ce(kind="ce", weight=1.0),))
        fit(net, [stage], data, None, Reporter(lambda event: None))
        ends.append(net(data.inputs(data.rows["test"])).detach())
    assert torch.allclose(ends[0], ends[1], rtol=0.01, atol=0.01), (ends[0] - ends[1]).abs().max()


@pytest.mark.parametrize("architecture", NETWORKS, ids=lambda net: f"{net.name}-{getattr(net, 'depth', '')}")
def test_feature_maps_come_out_with_their_channels_last_all_the_way(architecture: object, colour_file: Path) -> None:
    net, x = built(architecture, colour_file).eval(), torch.rand(4, 3, 8, 8) * 255
    layouts = []

    def note(module: nn.Module, given: object, out: torch.Tensor) -> None:
        # A map of 1×1 pixels, or of one channel, has both layouts.
        layouts.append(out.is_contiguous(memory_format=torch.channels_last))

    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(note)
    net(x)
    assert layouts
    assert all(layouts)


@pytest.mark.parametrize("architecture", NETWORKS, ids=lambda net: f"{net.name}-{getattr(net, 'depth', '')}")
def test_a_file_is_the_same_whatever_the_layout_in_memory(architecture: object, colour_file: Path) -> None:
    net = built(architecture, colour_file)
    assert any(not p.is_contiguous() for p in net.parameters() if p.ndim == 4)
    assert weight_bytes(net) == weight_bytes(plain(built(architecture, colour_file)))


@pytest.mark.usefixtures("bf16_everywhere")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_job_run_again_leaves_the_same_bytes_and_a_loaded_student_has_the_fast_layout(
    precision: str, colour_file: Path, tmp_path: Path
) -> None:
    spec = resolved(
        colour_file,
        teacher={"train": {"architecture": {"name": "resnet", "depth": 8, "width": 8}, "epochs": 2}},
        student={"name": "cnn", "channels": [8, 16]},
        training={"epochs": 3, "precision": precision},
        export={"onnx": True},
    )
    sums = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        finished = run(spec, RunIO(colour_file, None, tmp_path / name, threads=1), lambda event: None)
        sums.append({file.name: file.sha256 for file in finished.files if file.kind in ("weights", "onnx")})
    assert sums[0] == sums[1]
    assert len(sums[0]) == 2
    weight = load(tmp_path / "first").get_parameter("network.4.weight")
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert not weight.is_contiguous()


def faults(rounds: int) -> int:
    """Pages the kernel had to bring in for tensors of 40 MB in all, made and freed `rounds` times."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(rounds):
        kept = [torch.ones(2**20) for _ in range(10)]
        del kept
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def test_memory_a_step_has_freed_is_there_for_the_next_one() -> None:
    pages = 40 * 2**20 // resource.getpagesize()
    with heap_kept():
        faults(2)
        assert faults(10) < pages  # ten times as many when all of it goes back each time


class Convolutions(TorchDispatchMode):
    """Notes the stride of each convolution that is worked out."""

    def __init__(self) -> None:
        super().__init__()
        self.strides: list[list[int]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.convolution.default:
            self.strides.append(args[3])
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("channels", [1, 3, 4, 7, 12, 16])
@pytest.mark.parametrize("stride", [2, (1, 3)])
def test_a_strided_convolution_of_one_pixel_has_the_gradients_of_its_definition(channels: int, stride: Any) -> None:
    # oneDNN 3 writes past a buffer here, channels last, and below a block of channels: on a CPU without AVX-512 the
    # gradients are wrong, or the process ends.
    torch.manual_seed(1)
    x = torch.randn(16, channels, 8, 8, requires_grad=True)
    plain_net = nn.Sequential(nn.Conv2d(channels, 8, 1, stride=stride))
    exact = nn.Sequential(nn.Conv2d(channels, 8, 1, stride=stride)).double()
    exact.load_state_dict(plain_net.state_dict())
    wide = x.detach().double().requires_grad_()
    exact(wide).square().sum().backward()
    net = channels_last(plain_net)
    with Convolutions() as seen:
        out = net(x.contiguous(memory_format=torch.channels_last))
    out.square().sum().backward()
    assert seen.strides == [[1, 1] if channels < 16 else list(net[0].stride)]
    assert torch.allclose(out.double(), exact(wide), atol=1e-5)
    assert torch.allclose(x.grad.double(), wide.grad, rtol=1e-4, atol=1e-4)
    for ours, definition in zip(net.parameters(), exact.parameters(), strict=True):
        assert torch.allclose(ours.grad.double(), definition.grad, rtol=1e-4, atol=1e-3)


def test_a_narrow_resnet_is_exported_as_what_it_computes(colour_file: Path, tmp_path: Path) -> None:
    net = built(Resnet(name="resnet", depth=18, width=4), colour_file).eval()
    x = torch.rand(5, 3, 8, 8) * 255
    path = tmp_path / "net.onnx"
    path.write_bytes(written(net, (3, 8, 8), 2, opset=18).SerializeToString())
    with torch.no_grad():
        [found] = InferenceSession(path).run(None, {"input": x.numpy()})
        assert np.allclose(found, net(x).numpy(), atol=1e-4)
