"""Every network the spec can name: its size, its shape, its start, and that raw values go in."""

from typing import Any, Literal

import pytest
import torch
import torchvision
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from distill.model import weight_bytes
from distill.students import STUDENTS, build
from distill.students.mobilenet import InvertedResidual, conv_norm
from distill.students.normalize import Normalize
from distill.students.registry import register
from distill.students.resnet import Block
from stillhouse.spec import STUDENTS as SPEC_STUDENTS
from stillhouse.spec import DataFacts
from stillhouse.spec.students import Cnn, Mlp, Mobilenet, Resnet
from stillhouse.spec.students.mobilenet import InvertedBlock

NETWORKS = [
    Mlp(name="mlp"),
    Mlp(name="mlp", hidden=()),
    Mlp(name="mlp", hidden=(1200, 1200), dropout=0.5, input_dropout=0.2),
    Cnn(name="cnn"),
    Cnn(name="cnn", channels=(7,), dropout=0.2),
    Cnn(name="cnn", channels=(8, 12, 16, 20)),
    Resnet(name="resnet", depth=8),
    Resnet(name="resnet", depth=20, width=5),
    Resnet(name="resnet", depth=32),
    Resnet(name="resnet", depth=18, width=6),
    Resnet(name="resnet", depth=34, width=2),
    Mobilenet(name="mobilenet", width=0.25, depth=1),
    Mobilenet(name="mobilenet"),
    Mobilenet(name="mobilenet", width=1.3, depth=3),
]


def images(side: int = 8, channels: int = 1, classes: int = 10) -> DataFacts:
    return DataFacts(
        task="image-classification",
        shape=(channels, side, side),
        dtype="uint8",
        classes=tuple(map(str, range(classes))),
        rows={"train": 1, "validation": 0, "test": 1},
    )


def network(architecture: Any, facts: DataFacts) -> nn.Module:
    channels = facts.shape[0]
    return build(architecture, facts, [1.0] * channels, [2.0] * channels)


def test_the_spec_and_the_engine_know_the_same_networks() -> None:
    assert set(STUDENTS.names()) == set(SPEC_STUDENTS)


def test_a_name_can_be_registered_only_once() -> None:
    with pytest.raises(ValueError, match="'mlp' is registered twice"):
        register("mlp")(lambda architecture, facts: nn.Identity())


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(KeyError, match="mlp"):
        STUDENTS["transformer"]


@pytest.mark.parametrize("facts", [images(), images(side=9, channels=3, classes=4)])
@pytest.mark.parametrize("architecture", NETWORKS, ids=str)
def test_the_size_is_the_closed_form_of_the_spec(architecture: Any, facts: DataFacts) -> None:
    net = network(architecture, facts)
    assert sum(p.numel() for p in net.parameters()) == architecture.parameters(facts)


@pytest.mark.parametrize("facts", [images(), images(side=9, channels=3, classes=4)])
@pytest.mark.parametrize("architecture", NETWORKS, ids=str)
def test_the_multiply_adds_are_the_closed_form_of_the_spec(architecture: Any, facts: DataFacts) -> None:
    net = network(architecture, facts).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(torch.zeros(1, *facts.shape))
    assert counter.get_total_flops() == 2 * architecture.macs(facts)


@pytest.mark.parametrize("facts", [images(), images(side=9, channels=3, classes=4)])
@pytest.mark.parametrize("architecture", NETWORKS, ids=str)
def test_the_file_is_no_larger_than_the_closed_form_and_hardly_smaller(architecture: Any, facts: DataFacts) -> None:
    net = network(architecture, facts)
    said, found = architecture.file_bytes(facts), len(weight_bytes(net))
    assert 0 <= said - found <= 64 * (len(net.state_dict()) + 1)


@pytest.mark.parametrize("architecture", NETWORKS, ids=str)
def test_raw_rows_go_in_and_finite_logits_come_out(architecture: Any) -> None:
    facts = images(side=9, channels=3, classes=4)
    logits = network(architecture, facts).eval()(torch.rand(5, *facts.shape) * 255)
    assert logits.shape == (5, 4)
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("architecture", NETWORKS, ids=str)
def test_the_smallest_image_the_spec_allows_fits(architecture: Any) -> None:
    side = next(s for s in range(1, 33) if architecture.misfit(images(side=s)) is None)
    facts = images(side=side)
    assert network(architecture, facts).train()(torch.rand(2, *facts.shape)).shape == (2, 10)


def test_a_table_goes_through_an_mlp() -> None:
    facts = DataFacts(
        task="tabular-classification",
        shape=(3,),
        dtype="float32",
        classes=("no", "yes"),
        rows={"train": 1, "validation": 0, "test": 1},
    )
    net = build(Mlp(name="mlp", hidden=(4,)), facts, [1.0, 2.0, 3.0], [1.0, 2.0, 4.0])
    assert net(torch.rand(6, 3)).shape == (6, 2)
    assert net.get_submodule("normalize")(torch.tensor([[2.0, 0.0, 7.0]])).tolist() == [[1.0, -1.0, 1.0]]


def test_normalisation_is_per_channel_and_travels_with_the_weights() -> None:
    layer = Normalize([1.0, 10.0], [2.0, 5.0], image=True)
    x = torch.tensor([3.0, 20.0]).view(1, 2, 1, 1).expand(1, 2, 4, 4)
    assert layer(x)[0, :, 0, 0].tolist() == [1.0, 2.0]
    assert set(layer.state_dict()) == {"mean", "std"}
    assert list(layer.parameters()) == []


def test_the_resnet_has_the_layers_its_depth_says() -> None:
    for depth in (8, 20, 32):
        net = network(Resnet(name="resnet", depth=depth), images())
        weighted = [layer for layer in net.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
        assert len(weighted) == depth


def test_the_published_size_of_resnet_20_on_cifar_is_met() -> None:
    # He et al. 2015, table 6: 0.27 M parameters.
    net = network(Resnet(name="resnet", depth=20), images(side=32, channels=3))
    assert sum(p.numel() for p in net.parameters()) == pytest.approx(0.27e6, rel=0.02)


def test_the_shortcut_takes_every_second_pixel_and_pads_channels_with_zeros() -> None:
    block = Block(2, 4, stride=2)
    nn.init.zeros_(block.norm2.weight)  # the residual branch is silent: only the shortcut is left
    x = torch.rand(1, 2, 5, 5)
    out = block.eval()(x)
    assert torch.equal(out[:, 1:3], x[:, :, ::2, ::2])
    assert out[:, [0, 3]].abs().sum() == 0


def test_convolutions_start_at_the_scale_of_he() -> None:
    torch.manual_seed(0)
    net = network(Resnet(name="resnet", depth=8, width=64), images())
    conv = net.get_submodule("network.0")
    assert isinstance(conv, nn.Conv2d)
    assert conv.weight.std().item() == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.1)
    assert conv.bias is None


def test_a_mobilenet_halves_large_images_once_more() -> None:
    def last(side: int) -> torch.Size:
        net = network(Mobilenet(name="mobilenet", width=0.25, depth=1), images(side=side)).eval()
        return nn.Sequential(*list(net.get_submodule("network"))[:-2])(torch.zeros(1, 1, side, side)).shape  # type: ignore[call-overload]

    assert last(32)[2:] == (4, 4)
    assert last(64)[2:] == (4, 4)


def test_the_multiply_adds_of_a_large_image_count_the_halving_stem() -> None:
    architecture, facts = Mobilenet(name="mobilenet", width=0.5), images(side=65, channels=3)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(architecture, facts).eval()(torch.zeros(1, *facts.shape))
    assert counter.get_total_flops() == 2 * architecture.macs(facts)


def test_an_inverted_residual_adds_its_input_where_the_shape_stays() -> None:
    stays = InvertedResidual(InvertedBlock(4, 4, 1, 6)).eval()
    nn.init.zeros_(stays.project[1].weight)  # type: ignore[arg-type]  # the branch is silent: only the shortcut is left
    x = torch.rand(1, 4, 5, 5)
    assert torch.equal(stays(x), x)
    assert not InvertedResidual(InvertedBlock(4, 8, 1, 6)).shortcut
    assert not InvertedResidual(InvertedBlock(4, 4, 2, 6)).shortcut


def test_a_depthwise_convolution_starts_at_the_scale_of_its_own_few_inputs() -> None:
    torch.manual_seed(0)
    conv = conv_norm(512, 512, 3, groups=512)[0]
    assert isinstance(conv.weight, torch.Tensor)
    assert conv.weight.std().item() == pytest.approx((2 / 9) ** 0.5, rel=0.1)


def test_the_same_stream_gives_the_same_first_weights() -> None:
    def first() -> torch.Tensor:
        torch.manual_seed(5)
        return torch.cat([p.flatten() for p in network(Cnn(name="cnn"), images()).parameters()])

    assert torch.equal(first(), first())


@pytest.mark.parametrize("depth", [18, 34])
def test_a_resnet_of_four_stages_is_torchvisions_with_the_stem_for_small_images(depth: Literal[18, 34]) -> None:
    theirs = getattr(torchvision.models, f"resnet{depth}")(num_classes=10)
    theirs.conv1, theirs.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    ours = network(Resnet(name="resnet", depth=depth, width=64), images(side=32, channels=3)).get_submodule("network")
    assert isinstance(ours, nn.Sequential)
    # Both list stem, blocks (their two convolutions, then the projection) and head in the order they are computed.
    state = list(theirs.state_dict().values())
    assert [value.shape for value in ours.state_dict().values()] == [value.shape for value in state]
    ours.load_state_dict(dict(zip(ours.state_dict(), state, strict=True)))
    x = torch.rand(3, 3, 32, 32)
    expected = theirs.eval()(x)
    # A logit near 0 is what is left of large ones: rounding is of their size, and another in each layout.
    assert torch.allclose(ours.eval()(x), expected, rtol=0, atol=1e-4 * float(expected.detach().abs().max()))
