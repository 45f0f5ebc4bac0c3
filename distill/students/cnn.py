"""A plain convolutional network."""

from itertools import pairwise

from torch import Tensor, nn

from distill.students.registry import register
from stillhouse.spec import DataFacts
from stillhouse.spec.students import Cnn


class GlobalAverage(nn.Module):
    """[N, C, H, W] → [N, C]. A plain mean: its gradient is deterministic on CUDA, that of adaptive pooling is not."""

    def forward(self, x: Tensor) -> Tensor:
        """Average over height and width."""
        return x.mean(dim=(2, 3))


@register("cnn")
def cnn(architecture: Cnn, facts: DataFacts) -> nn.Module:
    """Blocks of 3×3 convolution, batch norm, ReLU, with 2×2 max pools between: [N, C, H, W] → logits [N, classes]."""
    planes = (facts.shape[0], *architecture.channels)
    layers: list[nn.Module] = []
    for position, (before, after) in enumerate(pairwise(planes)):
        if position:
            layers.append(nn.MaxPool2d(2))
        layers.append(conv3x3(before, after))
        layers += [nn.BatchNorm2d(after), nn.ReLU()]
    layers.append(GlobalAverage())
    if architecture.dropout:
        layers.append(nn.Dropout(architecture.dropout))
    return nn.Sequential(*layers, nn.Linear(planes[-1], len(facts.classes)))


def conv3x3(before: int, after: int, *, stride: int = 1) -> nn.Conv2d:
    """3×3 convolution without bias, padding 1, weights by He et al. 2015 (arXiv:1502.01852)."""
    conv = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv
