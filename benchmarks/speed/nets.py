"""The two networks as anybody would write them, for the loops Stillhouse is compared with. Needs torch alone."""

import numpy as np
import torch
import torchvision
from torch import Tensor, nn
from torch.utils.data import TensorDataset


def teacher(classes: int) -> nn.Module:
    """ResNet-18 with the stem for small images: 3×3, stride 1, no pool. Frozen."""
    net = torchvision.models.resnet18(num_classes=classes)
    net.conv1, net.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    return net.eval().requires_grad_(False)


def student(classes: int) -> nn.Module:
    """Three blocks of 3×3 convolution, batch norm and ReLU with 16, 32 and 64 channels, pools between them."""

    def block(before: int, after: int) -> list[nn.Module]:
        return [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]

    layers = [*block(3, 16), nn.MaxPool2d(2), *block(16, 32), nn.MaxPool2d(2), *block(32, 64)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, classes))


def dataset(arrays: str) -> TensorDataset:
    """The standardised images float32 [N, 3, 32, 32] and labels int64 [N], all in memory."""
    with np.load(arrays) as file:
        return TensorDataset(torch.from_numpy(file["x"]), torch.from_numpy(file["y"]))


def parameters(net: nn.Module) -> int:
    """How many weights there are: both sides must say the same."""
    return sum(p.numel() for p in net.parameters())


def fill(net: nn.Module, state: dict[str, Tensor]) -> None:
    """Give `net` the tensors of `state` in their order, whatever they are called."""
    net.load_state_dict(dict(zip(net.state_dict(), state.values(), strict=True)))
