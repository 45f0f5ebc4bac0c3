"""Relational distillation: rows lie to each other as they do in the teacher."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill.losses.maps import as_rows
from distill.losses.pairwise import over_pairs
from distill.losses.registry import Context, register_layered
from stillhouse.spec.losses import Rkd

ANGLE_ROWS = 128  # rows that form angles with each other: triplets grow with the cube of this


@register_layered("rkd", auto="penultimate", needs="any")
def _rkd(params: Rkd, context: Context) -> nn.Module:
    return over_pairs(context.pairs, partial(rkd, distance=params.distance, angle=params.angle))


def rkd(student: Tensor, teacher: Tensor, *, distance: float, angle: float) -> Tensor:
    """distance · mean over (i, j) of h(d_ij, d'_ij) + angle · mean over (i, j, k) of h(cos ∠ijk, cos' ∠ijk), h the
    smooth-L1 (Huber) difference (Park et al. 2019, arXiv:1904.05068 eq. 5 to 8).

    d are Euclidean distances ÷ the mean of those that are not 0. Features [B, …] are flattened, sizes may differ;
    float32 or wider inside, no gradient to the teacher. The scale of either does not matter. Batches of more than 128
    rows form angles within groups of 128.
    """
    s, t = as_rows(student), as_rows(teacher.detach())
    total = distance * F.smooth_l1_loss(_distances(s), _distances(t))
    groups = list(zip(torch.split(s, ANGLE_ROWS), torch.split(t, ANGLE_ROWS), strict=True))
    triplets = sum(len(a) ** 3 for a, _ in groups)
    angles = torch.stack([F.smooth_l1_loss(_angles(a), _angles(b), reduction="sum") for a, b in groups])
    return total + angle * angles.sum() / triplets


def _distances(rows: Tensor) -> Tensor:
    """[B, F] → distances [B, B] ÷ the mean of those above 0."""
    _, far, apart = _gram(rows)
    mean = far.sum() / apart.sum().clamp(min=1)
    return far / torch.where(apart.any(), mean, torch.ones_like(mean))


def _angles(rows: Tensor) -> Tensor:
    """[B, F] → cosine at row i between the directions to j and k, [B, B, B]; 0 where one of them has no direction.

    (x_j - x_i)·(x_k - x_i) from products of rows alone: differences of all pairs would need B² · F numbers.
    """
    gram, far, apart = _gram(rows)
    inner = gram[None] - gram[:, :, None] - gram[:, None, :] + gram.diagonal()[:, None, None]
    both = apart[:, :, None] & apart[:, None, :]
    lengths = far[:, :, None] * far[:, None, :]
    return torch.where(both, inner / torch.where(both, lengths, 1.0), 0.0)


def _gram(rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Products of the centred rows, their distances, and which pairs are further apart than rounding: all [B, B]."""
    centred = rows - rows.mean(0)  # the distances stay, the rounding of the products shrinks
    gram = centred @ centred.T
    squares = gram.diagonal()
    scale = squares[:, None] + squares[None]
    between = scale - 2 * gram
    apart = (between > 64 * torch.finfo(rows.dtype).eps * scale).detach()
    # The root has no derivative at 0, so it must not see one.
    return gram, torch.where(apart, between.where(apart, 1.0).sqrt(), 0.0), apart
