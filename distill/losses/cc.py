"""Correlation congruence: one kernel matrix for both networks."""

import math
from functools import partial

from torch import Tensor, nn

from distill.losses.maps import as_rows, unit
from distill.losses.pairwise import over_pairs
from distill.losses.registry import Context, register_layered
from stillhouse.spec.losses import Cc


@register_layered("cc", auto="penultimate", needs="any")
def _cc(params: Cc, context: Context) -> nn.Module:
    return over_pairs(context.pairs, partial(cc, gamma=params.gamma, order=params.order))


def cc(student: Tensor, teacher: Tensor, *, gamma: float, order: int) -> Tensor:
    """‖K_s - K_t‖²_F / B², K_ij = Σ_{p ≤ order} e^{-2γ} (2γ)^p / p! · (x_i·x_j)^p for features of length 1: the Taylor
    series of exp(-γ ‖x_i - x_j‖²) (Peng et al. 2019, arXiv:1904.01802 eq. 4 and 6).

    Features [B, …] are flattened, sizes may differ; float32 or wider inside, no gradient to the teacher. The scale of
    either does not matter.
    """
    return (_kernel(student, gamma, order) - _kernel(teacher.detach(), gamma, order)).square().mean()


def _kernel(features: Tensor, gamma: float, order: int) -> Tensor:
    rows = unit(as_rows(features))
    products = rows @ rows.T
    scale = math.exp(-2 * gamma)
    value = products.new_full((), scale)
    for p in range(1, order + 1):
        scale *= 2 * gamma / p
        value = value + scale * products**p
    return value
