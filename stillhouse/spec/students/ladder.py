"""Students in steps from tiny to large: what the catalogue shows for some data, and what a budget chooses from."""

from stillhouse.spec.facts import DataFacts
from stillhouse.spec.students.architecture import Architecture
from stillhouse.spec.students.cnn import Cnn
from stillhouse.spec.students.mlp import Mlp
from stillhouse.spec.students.mobilenet import Mobilenet
from stillhouse.spec.students.resnet import Resnet
from stillhouse.spec.students.timm import Timm

_MLPS = tuple(
    Mlp(name="mlp", hidden=hidden)
    for hidden in ((4,), (8,), (16,), (32,), (64,), (128,), (256,), (256, 256), (512, 512), (1024, 1024))
)
_CNNS = tuple(
    Cnn(name="cnn", channels=channels)
    for channels in ((4, 8), (8, 16), (8, 16, 32), (16, 32, 64), (32, 64, 128), (64, 128, 256))
)
_RESNETS = (
    Resnet(name="resnet", depth=8, width=8),
    Resnet(name="resnet", depth=8),
    Resnet(name="resnet", depth=20),
    Resnet(name="resnet", depth=32),
    Resnet(name="resnet", depth=20, width=32),
    Resnet(name="resnet", depth=32, width=64),
)
_MOBILENETS = (
    Mobilenet(name="mobilenet", width=0.25, depth=1),
    Mobilenet(name="mobilenet", width=0.5, depth=1),
    Mobilenet(name="mobilenet", width=0.5),
    Mobilenet(name="mobilenet"),
    Mobilenet(name="mobilenet", depth=3),
    Mobilenet(name="mobilenet", width=2.0),
)
LADDER: tuple[Architecture, ...] = (*_MLPS, *_CNNS, *_RESNETS, *_MOBILENETS)


def largest_first(networks: tuple[Architecture, ...], facts: DataFacts) -> tuple[Architecture, ...]:
    """By parameters, and by multiply-adds where those are equal."""
    return tuple(sorted(networks, key=lambda net: (net.parameters(facts), net.macs(facts)), reverse=True))


def fitting(facts: DataFacts) -> tuple[Architecture, ...]:
    """The steps that can take this data, in the order of LADDER."""
    return tuple(net for net in LADDER if facts.task in net.tasks and net.misfit(facts) is None)


_TIMM = (
    "test_vit",
    "lcnet_050",
    "mobilenetv3_small_050",
    "mobilenetv4_conv_small",
    "convnext_atto",
    "efficientnet_b0",
    "vit_tiny_patch16_224",
    "resnet18",
    "resnet50",
)


def examples() -> tuple[Architecture, ...]:
    """The ladder and a few of the many networks of timm: a budget tries those only when its candidates name them."""
    return (*LADDER, *(Timm(name="timm", architecture=architecture) for architecture in _TIMM))
