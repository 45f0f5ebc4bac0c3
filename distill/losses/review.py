"""Knowledge review: a shallow layer of the teacher is learnt from all deeper layers of the student together."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill.losses.maps import as_map, conv1x1, resized
from distill.losses.pairwise import features
from distill.losses.registry import Batch, Context, register_layered
from distill.taps import Pair
from stillhouse.spec.losses import Review

_SCALES = (4, 2, 1)  # pixels of the pooled maps


@register_layered("review", auto="stages and penultimate", needs="alike")
def _review(params: Review, context: Context) -> nn.Module:
    return KnowledgeReview(context.pairs, params.max_channels)


class KnowledgeReview(nn.Module):
    """Σ over layers of HCL(ABF(student's layer, what the deeper ones gave), teacher's layer) (Chen et al. 2021,
    arXiv:2104.09044 §3.3 and 3.4).

    `pairs` go from shallow to deep; features are maps [B, C, H, W] or vectors [B, C], taken as maps of one pixel. The
    fusions train with the student and belong to this loss; they hold batch norm, so a step needs two rows.
    """

    def __init__(self, pairs: tuple[Pair, ...], max_channels: int) -> None:
        super().__init__()
        self._pairs = pairs[::-1]  # from deep to shallow, as they are fused
        width = min(max_channels, pairs[-1].student.shape[0])
        self.fusions = nn.ModuleList(
            Fusion(pair.student.shape[0], width, pair.teacher.shape[0], first=not depth)
            for depth, pair in enumerate(self._pairs)
        )

    def forward(self, batch: Batch) -> Tensor:
        """A scalar."""
        values, deeper = [], None
        for pair, fusion in zip(self._pairs, self.fusions, strict=True):
            student, teacher = map(as_map, features(pair, batch))
            found, deeper = fusion(student, deeper, teacher.shape[2:])
            values.append(hierarchical(found, teacher))
        return torch.stack(values).sum()


class Fusion(nn.Module):
    """ABF, attention-based fusion (§3.3, fig. 3a): both inputs are weighed pixel by pixel and added."""

    def __init__(self, before: int, width: int, after: int, *, first: bool) -> None:
        super().__init__()
        self.entry = nn.Sequential(_spread(conv1x1(before, width)), nn.BatchNorm2d(width))
        self.attention = None if first else nn.Sequential(conv1x1(2 * width, 2, bias=True), nn.Sigmoid())
        exit_conv = _spread(nn.Conv2d(width, after, 3, padding=1, bias=False))
        self.exit = nn.Sequential(exit_conv, nn.BatchNorm2d(after))

    def forward(self, student: Tensor, deeper: Tensor | None, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Student's map [B, before, h, w] and what the deeper layers gave [B, width, ., .] → the map to compare
        [B, after, H, W] and what goes on to the next shallower layer [B, width, H, W], `size` = (H, W)."""
        x = self.entry(student)  # [B, width, h, w]
        if self.attention is not None and deeper is not None:
            y = F.interpolate(deeper, x.shape[2:])  # nearest
            share = self.attention(torch.cat([x, y], dim=1))  # [B, 2, h, w]
            x = x * share[:, :1] + y * share[:, 1:]
        x = F.interpolate(x, size)
        return self.exit(x), x


def hierarchical(student: Tensor, teacher: Tensor) -> Tensor:
    """HCL, hierarchical context loss (§3.4): mean squared difference of the maps [B, C, H, W] and, with weights ½, ¼
    and ⅛, of the maps pooled to 4×4, 2×2 and 1×1 pixels, ÷ the sum of the weights. Scales that the maps do not exceed
    are left out.

    float32 or wider inside, no gradient to the teacher.
    """
    teacher = teacher.detach()
    total, weight, weights = F.mse_loss(student, teacher), 1.0, 1.0
    for side in _SCALES:
        if side < min(student.shape[2:]):
            weight /= 2
            weights += weight
            total = total + weight * F.mse_loss(resized(student, side, side), resized(teacher, side, side))
    return total / weights


def _spread(conv: nn.Conv2d) -> nn.Conv2d:
    """First weights as in the released code (uniform, fan-in)."""
    nn.init.kaiming_uniform_(conv.weight, a=1)
    return conv
