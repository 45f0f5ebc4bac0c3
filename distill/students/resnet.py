"""The residual networks for small images of He et al. 2015 (arXiv:1512.03385 §4.2 and table 1)."""

import torch.nn.functional as F
from torch import Tensor, nn

from distill.students.cnn import GlobalAverage, conv3x3
from distill.students.registry import register
from stillhouse.spec import DataFacts
from stillhouse.spec.students import Resnet


class Block(nn.Module):
    """Two 3×3 convolutions beside a shortcut. Where the shape changes, the shortcut is option A of the paper (every
    second pixel, zeros for the new channels, no parameters), or with `project` option B, a 1×1 convolution."""

    def __init__(self, before: int, after: int, *, stride: int, project: bool = False) -> None:
        super().__init__()
        self.conv1, self.norm1 = conv3x3(before, after, stride=stride), nn.BatchNorm2d(after)
        self.conv2, self.norm2 = conv3x3(after, after), nn.BatchNorm2d(after)
        self.stride, self.new_channels = stride, after - before
        self.project = _projection(before, after, stride) if project else None

    def forward(self, x: Tensor) -> Tensor:
        """[N, before, H, W] → [N, after, ⌈H/stride⌉, ⌈W/stride⌉]."""
        out = F.relu(self.norm1(self.conv1(x)))
        out = self.norm2(self.conv2(out))
        return F.relu(out + self._shortcut(x))

    def _shortcut(self, x: Tensor) -> Tensor:
        if self.project is not None:
            out: Tensor = self.project(x)
            return out
        if self.stride == 1:
            return x
        half = self.new_channels // 2
        # F.pad counts from the last dimension: width, height, then channels.
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, half, self.new_channels - half))


def _projection(before: int, after: int, stride: int) -> nn.Sequential:
    conv = nn.Conv2d(before, after, 1, stride=stride, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(conv, nn.BatchNorm2d(after))


@register("resnet")
def resnet(architecture: Resnet, facts: DataFacts) -> nn.Module:
    """Stem, stages of blocks with w, 2w, 4w … channels, average, linear: [N, C, H, W] → logits [N, classes]."""
    width = architecture.width
    layers: list[nn.Module] = [conv3x3(facts.shape[0], width), nn.BatchNorm2d(width), nn.ReLU()]
    before = width
    for stage, blocks in enumerate(architecture.blocks):
        after = width * 2**stage
        for block in range(blocks):
            first = stage > 0 and block == 0
            layers.append(Block(before, after, stride=2 if first else 1, project=first and architecture.projects))
            before = after
    return nn.Sequential(*layers, GlobalAverage(), nn.Linear(before, len(facts.classes)))
