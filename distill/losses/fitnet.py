"""Hints: a layer of the student, linearly mapped, imitates a layer of the teacher."""

import torch.nn.functional as F
from torch import Tensor, nn

from distill.losses.maps import as_map, conv1x1, resized
from distill.losses.pairwise import OverPairs
from distill.losses.registry import Context, register_layered
from distill.taps import Pair
from stillhouse.spec.losses import Fitnet


@register_layered("fitnet", auto="middle stage", needs="alike")
def _fitnet(params: Fitnet, context: Context) -> nn.Module:
    return OverPairs(context.pairs, [Hint(pair) for pair in context.pairs])


class Hint(nn.Module):
    """Σ (r(student) - teacher)² / (B · C · H · W), r a learned 1×1 convolution (Romero et al. 2015, arXiv:1412.6550 eq.
    3, as a mean, as in RepDistiller).

    Maps [B, C, H, W], the teacher's resized to the student's height and width, or vectors [B, C]; float32 or wider
    inside, no gradient to the teacher. r trains with the student and belongs to this loss.
    """

    def __init__(self, pair: Pair) -> None:
        super().__init__()
        self.projector = conv1x1(pair.student.shape[0], pair.teacher.shape[0], bias=True)

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """A scalar, the mean over rows, channels and pixels."""
        here, there = as_map(student), as_map(teacher.detach())
        return F.mse_loss(self.projector(here), resized(there, *here.shape[2:]))
