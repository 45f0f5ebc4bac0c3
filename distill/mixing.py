"""Rows mixed with others of their batch, and their labels in the same shares. The teacher sees the mixture too."""

import math
from dataclasses import replace
from random import Random

import torch
from torch import Tensor

from distill.losses import Targets
from distill.seeds import derive
from stillhouse.spec.training import Augmentation


def mixes(augmentation: Augmentation) -> bool:
    """True when rows are mixed: then what is seen depends on the batch."""
    return augmentation.mixup > 0 or augmentation.cutmix > 0


def mixed(
    x: Tensor, targets: Targets, augmentation: Augmentation, seed: int, stream: str, step: int
) -> tuple[Tensor, Targets]:
    """Rows float32 [B, …] after mixup or cutmix, and their targets: a pure function of the batch, seed and step.

    One share λ ~ Beta(α, α) for the batch; with both, each batch takes either, with even odds.
    """
    random = Random(derive(seed, stream, "mixing", step))  # noqa: S311 (repeatable is what it must be)
    paste = augmentation.cutmix > 0 and (augmentation.mixup == 0 or random.random() < 0.5)
    alpha = augmentation.cutmix if paste else augmentation.mixup
    share = random.betavariate(alpha, alpha)
    partner = partners(targets)
    if paste:
        box = pasted_box(share, x.shape[2], x.shape[3], random)
        x, share = cutmix(x, partner, box)
    else:
        x = mixup(x, partner, share)
    return x, replace(targets, mixed_in=targets.labels[partner], share=share)


def partners(targets: Targets) -> Tensor:
    """The row each row is mixed with, int64 [B]: the one before it, among rows that have a label as long as it has one.

    Half a label would teach that the other half is not there.
    """
    rows = torch.arange(len(targets.labels), device=targets.labels.device)
    if not targets.partial:
        return rows.roll(1)
    out = rows.clone()
    for group in (targets.labels >= 0, targets.labels < 0):
        out[group] = rows[group].roll(1)
    return out


def mixup(x: Tensor, partner: Tensor, share: float) -> Tensor:
    """share · x + (1 - share) · partner (Zhang et al. 2017, arXiv:1710.09412)."""
    return share * x + (1 - share) * x[partner]


def pasted_box(share: float, height: int, width: int, random: Random) -> tuple[int, int, int, int]:
    """(top, bottom, left, right) of a box of 1 - share of the image, cut where it leaves it (arXiv:1905.04899 §3.1)."""
    half = 0.5 * math.sqrt(1 - share)
    half_height, half_width = int(half * height), int(half * width)
    y, x = random.randrange(height), random.randrange(width)
    return max(0, y - half_height), min(height, y + half_height), max(0, x - half_width), min(width, x + half_width)


def cutmix(x: Tensor, partner: Tensor, box: tuple[int, int, int, int]) -> tuple[Tensor, float]:
    """Images [B, C, H, W] with the partner's pixels in the box, and the share of pixels that is their own."""
    top, bottom, left, right = box
    out = x.clone()
    out[:, :, top:bottom, left:right] = x[partner][:, :, top:bottom, left:right]
    return out, 1 - (bottom - top) * (right - left) / (x.shape[2] * x.shape[3])
