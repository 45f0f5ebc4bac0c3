"""Logits as distributions at a temperature, in float32 or wider."""

import torch
import torch.nn.functional as F
from torch import Tensor


def widen(logits: Tensor) -> Tensor:
    """float32 or wider: a divergence computed in bf16 can come out negative."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def standardized(logits: Tensor) -> Tensor:
    """(z - mean) / deviation of each row [N, C], population deviation (Sun et al. 2024, arXiv:2403.01427 eq. 10)."""
    centred = logits - logits.mean(dim=-1, keepdim=True)
    return centred / (centred.square().mean(dim=-1, keepdim=True).sqrt() + 1e-7)


def log_softened(logits: Tensor, *, temperature: float, standardize: bool = False) -> Tensor:
    """log softmax(z / T), rows [N, C]."""
    wide = widen(logits)
    return F.log_softmax((standardized(wide) if standardize else wide) / temperature, dim=-1)


def kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p ‖ q) in nats, mean over rows [N, C]; never below 0."""
    value = F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)
    # Between nearly equal distributions rounding can leave -1e-9: lift the value, keep the gradient.
    return value + (value.clamp(min=0) - value).detach()
