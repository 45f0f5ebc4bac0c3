"""Similarity preservation: what is alike for the teacher is alike for the student."""

from torch import Tensor, nn

from distill.losses.maps import as_rows, unit
from distill.losses.pairwise import over_pairs
from distill.losses.registry import Context, register_layered
from stillhouse.spec.losses import Similarity


@register_layered("similarity", auto="penultimate", needs="any")
def _similarity(params: Similarity, context: Context) -> nn.Module:
    return over_pairs(context.pairs, similarity)


def similarity(student: Tensor, teacher: Tensor) -> Tensor:
    """‖G_s - G_t‖²_F / B², G = F·Fᵀ with each row scaled to length 1 (Tung & Mori 2019, arXiv:1907.09682 eq. 4).

    Features [B, …] are flattened to F [B, .], sizes may differ; float32 or wider inside, no gradient to the teacher.
    The scale of either does not matter. A row of G holds B numbers of length 1 together, so the loss falls as 1/B.
    """
    return (_similarities(student) - _similarities(teacher.detach())).square().mean()


def _similarities(features: Tensor) -> Tensor:
    rows = as_rows(features)
    return unit(rows @ rows.T)
