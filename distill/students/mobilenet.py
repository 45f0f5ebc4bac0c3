"""The inverted residual network of Sandler et al. 2018 (arXiv:1801.04381), sized for small images."""

from torch import Tensor, nn

from distill.students.cnn import GlobalAverage
from distill.students.registry import register
from stillhouse.spec import DataFacts
from stillhouse.spec.students.mobilenet import InvertedBlock, Mobilenet


class InvertedResidual(nn.Module):
    """Expand 1×1, filter 3×3 depthwise, project 1×1 without an activation (the linear bottleneck of §3.2)."""

    def __init__(self, block: InvertedBlock) -> None:
        super().__init__()
        inner = block.inner
        self.expand = conv_norm(block.before, inner, 1) if block.expansion > 1 else nn.Identity()
        self.filter = conv_norm(inner, inner, 3, stride=block.stride, groups=inner)
        self.project = conv_norm(inner, block.after, 1, activation=False)
        self.shortcut = block.stride == 1 and block.before == block.after

    def forward(self, x: Tensor) -> Tensor:
        """[N, before, H, W] → [N, after, ⌈H/stride⌉, ⌈W/stride⌉]."""
        out: Tensor = self.project(self.filter(self.expand(x)))
        return x + out if self.shortcut else out


@register("mobilenet")
def mobilenet(architecture: Mobilenet, facts: DataFacts) -> nn.Module:
    """Stem, four stages of inverted residuals, 1×1 head, average, linear: [N, C, H, W] → logits [N, classes]."""
    blocks = architecture.blocks
    return nn.Sequential(
        conv_norm(facts.shape[0], architecture.stem, 3, stride=architecture.stem_stride(facts)),
        *(InvertedResidual(block) for block in blocks),
        conv_norm(blocks[-1].after, architecture.head, 1),
        GlobalAverage(),
        nn.Linear(architecture.head, len(facts.classes)),
    )


def conv_norm(
    before: int, after: int, kernel: int, *, stride: int = 1, groups: int = 1, activation: bool = True
) -> nn.Sequential:
    """Convolution without bias, batch norm and, unless switched off, ReLU6.

    Weights are drawn at the scale of He et al. 2015 for the inputs a filter really sees: torch's own fan_out ignores
    groups and would start depthwise filters far too small.
    """
    conv = nn.Conv2d(before, after, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False)
    nn.init.normal_(conv.weight, std=(2 * groups / (kernel * kernel * after)) ** 0.5)
    layers: list[nn.Module] = [conv, nn.BatchNorm2d(after)]
    if activation:
        layers.append(nn.ReLU6())
    return nn.Sequential(*layers)
