"""Attention transfer: the student looks where the teacher looks."""

from functools import partial

from torch import Tensor, nn

from distill.losses.maps import to_the_smaller, unit
from distill.losses.pairwise import over_pairs
from distill.losses.registry import Context, register_layered
from distill.losses.softened import widen
from stillhouse.spec.losses import AttentionTransfer


@register_layered("attention-transfer", auto="stages", needs="maps")
def _attention_transfer(params: AttentionTransfer, context: Context) -> nn.Module:
    return over_pairs(context.pairs, partial(attention_transfer, power=params.power))


def attention_transfer(student: Tensor, teacher: Tensor, *, power: float) -> Tensor:
    """Σ (Q_s/‖Q_s‖ - Q_t/‖Q_t‖)² / (B · H · W), Q = vec(mean over channels of |feature|^p) for each row (Zagoruyko &
    Komodakis 2017, arXiv:1612.03928 eq. 2, squared and as a mean, as in its released code).

    Maps [B, ., H, W] with any number of channels, the larger pooled to the size of the smaller; float32 or wider
    inside, no gradient to the teacher. The scale of either map does not matter.
    """
    here, there = to_the_smaller(widen(student), widen(teacher.detach()))
    return (_attention(here, power) - _attention(there, power)).square().mean()


def _attention(maps: Tensor, power: float) -> Tensor:
    """[B, C, H, W] → [B, H · W], each row of length 1."""
    return unit(maps.abs().pow(power).mean(1).flatten(1))
