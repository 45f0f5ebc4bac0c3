"""Logits as distributions at a temperature, in float32 or wider; whole, or as the k largest and the rest.

Top-k and the rest are distributions over k classes and one bucket for all others. The bucket holds the exact
probability of what is in it, so nothing is renormalised; a divergence between bucketed distributions is at most that
between the whole ones (the data-processing inequality), and the same at k = classes - 1.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def widen(logits: Tensor) -> Tensor:
    """float32 or wider: a divergence computed in bf16 can come out negative."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def standardized(logits: Tensor) -> Tensor:
    """(z - mean) / deviation of each row [N, C], population deviation (Sun et al. 2024, arXiv:2403.01427 eq. 10).

    Equal logits have none, and the slope there is infinite. They become 0, and their deviation counts as 1: a last
    layer that begins at 0 must be able to leave it.
    """
    away, flat = centred(logits)
    variance = torch.where(flat, 1.0, away.square().mean(dim=-1, keepdim=True))
    return away / (variance.clamp(min=torch.finfo(away.dtype).tiny).sqrt() + 1e-7)


def centred(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Rows [N, K] less the mean of each, and which of them are flat, bool [N, 1]: equal numbers but for rounding. What
    rounding leaves of those is taken for the 0 it is; their gradient stays."""
    away = rows - rows.mean(dim=-1, keepdim=True)
    here, size = (x.detach().abs().amax(dim=-1, keepdim=True) for x in (away, rows))
    flat = here <= 64 * torch.finfo(rows.dtype).eps * size
    return away - away.detach().where(flat, 0.0), flat


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Of the angle between each row of `a` [N, K] and that of `b`, which needs no gradient: [N]; 0 where one is 0.

    A row of zeros has no direction, and the slope there is infinite: it is taken to be as long as that of `b`, which
    pulls it finitely and to its own side.
    """
    tiny = torch.finfo(a.dtype).tiny ** 0.5
    here, there = (x.square().sum(1).clamp(min=tiny).sqrt() for x in (a, b))
    nowhere = (a.detach() == 0).all(1)
    return (a * b).sum(1) / (torch.where(nowhere, there, here) * there)


def log_softened(logits: Tensor, *, temperature: float, standardize: bool = False) -> Tensor:
    """log softmax(z / T), rows [N, C]."""
    wide = widen(logits)
    return F.log_softmax((standardized(wide) if standardize else wide) / temperature, dim=-1)


def kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p ‖ q) in nats, mean over rows [N, C]; never below 0."""
    value = F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)
    # Between nearly equal distributions rounding can leave -1e-9: lift the value, keep the gradient.
    return value + (value.clamp(min=0) - value).detach()


def top_of(logits: Tensor, k: int, *, temperature: float) -> tuple[Tensor, Tensor]:
    """The k largest of logits [N, C], k < C, as float32 values [N, k + 1] and their classes int64 [N, k].

    The last value is T · logsumexp(z / T) over all other classes: softmax(values / T) gives the k classes their own
    probabilities at T and the last place the sum of the others'.
    """
    ids = widen(logits).topk(k, dim=1).indices
    return bucketed(logits, ids, temperature=temperature), ids


def bucketed(logits: Tensor, ids: Tensor, *, temperature: float) -> Tensor:
    """Logits [N, C] in the buckets of `ids` int64 [N, k]: [N, k + 1], the last one all other classes at T."""
    wide = widen(logits)
    rest = wide.scatter(1, ids, -torch.inf) / temperature
    tail = temperature * rest.logsumexp(dim=1, keepdim=True)
    return torch.cat([wide.gather(1, ids), tail], dim=1)
