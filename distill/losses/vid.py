"""Variational information: as much of the teacher's layer as can be read off the student's."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill.losses.maps import as_map, conv1x1, to_the_smaller
from distill.losses.pairwise import OverPairs
from distill.losses.registry import Context, register_layered
from distill.taps import Pair
from stillhouse.spec.losses import Vid

_LEAST_VARIANCE = 1e-5


@register_layered("vid", auto="stages", needs="alike")
def _vid(params: Vid, context: Context) -> nn.Module:
    return OverPairs(context.pairs, [VariationalBound(pair, params.initial_variance) for pair in context.pairs])


class VariationalBound(nn.Module):
    """½ · mean over rows, channels, pixels of (t - μ(s))²/σ² + ln σ² (Ahn et al. 2019, arXiv:1904.05835 eq. 4 to 6,
    without the constant): the negative of a lower bound on the mutual information of the layers, so it may be below 0.

    μ are three 1×1 convolutions with ReLU between, σ² = softplus(α) + 10⁻⁵ is learned for each channel. Maps
    [B, C, H, W], the larger pooled to the size of the smaller, or vectors [B, C]; float32 or wider inside, no gradient
    to the teacher. μ and σ train with the student and belong to this loss.
    """

    def __init__(self, pair: Pair, initial_variance: float) -> None:
        super().__init__()
        here, there = pair.student.shape[0], pair.teacher.shape[0]
        self.mean = nn.Sequential(
            conv1x1(here, there), nn.ReLU(), conv1x1(there, there), nn.ReLU(), conv1x1(there, there)
        )
        alpha = math.log(math.expm1(initial_variance - _LEAST_VARIANCE))
        self.alpha = nn.Parameter(torch.full((there,), alpha))

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """A scalar."""
        here, there = to_the_smaller(as_map(student), as_map(teacher.detach()))
        variance = (F.softplus(self.alpha) + _LEAST_VARIANCE)[:, None, None]  # [C, 1, 1]
        value: Tensor = 0.5 * ((self.mean(here) - there).square() / variance + variance.log()).mean()
        return value
