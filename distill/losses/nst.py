"""Neuron selectivity: the channels of both networks respond to the same places, as distributions."""

from torch import Tensor, nn

from distill.losses.maps import to_the_smaller, unit
from distill.losses.pairwise import over_pairs
from distill.losses.registry import Context, register_layered
from distill.losses.softened import widen
from stillhouse.spec.losses import Nst


@register_layered("nst", auto="stages", needs="maps")
def _nst(params: Nst, context: Context) -> nn.Module:
    return over_pairs(context.pairs, nst)


def nst(student: Tensor, teacher: Tensor) -> Tensor:
    """MMD² of the channels of each row under the kernel k(x, y) = (x·y)², mean over rows (Huang & Wang 2017,
    arXiv:1707.01219 eq. 7, d = 2, c = 0): mean k(t, t') + mean k(s, s') - 2 · mean k(s, t), each channel a vector of
    length 1 over H · W.

    Maps [B, ., H, W] with any number of channels, the larger pooled to the size of the smaller; float32 or wider
    inside, no gradient to the teacher; ≥ 0 but for rounding. The scale of a channel does not matter.
    """
    here, there = to_the_smaller(widen(student), widen(teacher.detach()))
    s, t = unit(here.flatten(2)), unit(there.flatten(2))  # [B, C, H · W]
    return _kernel(t, t) + _kernel(s, s) - 2 * _kernel(s, t)


def _kernel(a: Tensor, b: Tensor) -> Tensor:
    """Mean of (x·y)² over rows and over the channels x of `a`, y of `b`."""
    return (a @ b.transpose(1, 2)).square().mean()
