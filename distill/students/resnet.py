"""The residual network for small images of He et al. 2015 (arXiv:1512.03385 §4.2)."""

import torch.nn.functional as F
from torch import Tensor, nn

from distill.students.cnn import GlobalAverage, conv3x3
from distill.students.registry import register
from stillhouse.spec import DataFacts
from stillhouse.spec.students import Resnet


class Block(nn.Module):
    """Two 3×3 convolutions beside a shortcut. When the shape changes, the shortcut is option A of the paper:
    every second pixel, zeros for the new channels, no parameters."""

    def __init__(self, before: int, after: int, *, stride: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = conv3x3(before, after, stride=stride), nn.BatchNorm2d(after)
        self.conv2, self.norm2 = conv3x3(after, after), nn.BatchNorm2d(after)
        self.stride, self.new_channels = stride, after - before

    def forward(self, x: Tensor) -> Tensor:
        """[N, before, H, W] → [N, after, ⌈H/stride⌉, ⌈W/stride⌉]."""
        out = F.relu(self.norm1(self.conv1(x)))
        out = self.norm2(self.conv2(out))
        return F.relu(out + self._shortcut(x))

    def _shortcut(self, x: Tensor) -> Tensor:
        if self.stride == 1:
            return x
        half = self.new_channels // 2
        # F.pad counts from the last dimension: width, height, then channels.
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, half, self.new_channels - half))


@register("resnet")
def resnet(architecture: Resnet, facts: DataFacts) -> nn.Module:
    """Stem, three stages of n blocks with w, 2w, 4w channels, average, linear: [N, C, H, W] → logits [N, classes]."""
    n, width = (architecture.depth - 2) // 6, architecture.width
    layers: list[nn.Module] = [conv3x3(facts.shape[0], width), nn.BatchNorm2d(width), nn.ReLU()]
    before = width
    for stage in range(3):
        after = width * 2**stage
        for block in range(n):
            layers.append(Block(before, after, stride=2 if stage and not block else 1))
            before = after
    return nn.Sequential(*layers, GlobalAverage(), nn.Linear(before, len(facts.classes)))
