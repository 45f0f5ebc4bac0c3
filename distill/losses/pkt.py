"""Probabilistic knowledge transfer: the odds with which rows find each other."""

from torch import Tensor, nn

from distill.losses.maps import as_rows, unit
from distill.losses.pairwise import over_pairs
from distill.losses.registry import Context, register_layered
from stillhouse.spec.losses import Pkt

_EPSILON = 1e-7  # inside the logarithms: two opposite rows have odds of 0


@register_layered("pkt", auto="penultimate", needs="any")
def _pkt(params: Pkt, context: Context) -> nn.Module:
    return over_pairs(context.pairs, pkt)


def pkt(student: Tensor, teacher: Tensor) -> Tensor:
    """Σ_ij p_ij · ln(p_ij / q_ij) / B², p of the teacher, q of the student: (cos + 1)/2 of the features of rows i and
    j, each row of the matrix scaled to sum 1 (Passalis & Tefas 2018, arXiv:1803.10837 eq. 4 to 7, ÷ B² as released).

    Features [B, …] are flattened, sizes may differ; float32 or wider inside, no gradient to the teacher. The scale of
    either does not matter. The sum over j is a KL, so the loss falls as 1/B.
    """
    q, p = _odds(student), _odds(teacher.detach())
    return (p * ((p + _EPSILON) / (q + _EPSILON)).log()).mean()


def _odds(features: Tensor) -> Tensor:
    rows = unit(as_rows(features))
    kernel = (rows @ rows.T + 1) / 2
    return kernel / kernel.sum(1, keepdim=True)
