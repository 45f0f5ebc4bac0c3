"""Which rows an epoch shows and how much each class weighs: pure functions of the labels, the seed and the epoch."""

from typing import Literal

import torch
from torch import Tensor

from distill.seeds import generator, permutation


def epoch_order(labels: Tensor, sampling: Literal["uniform", "balanced"], seed: int, stream: str, epoch: int) -> Tensor:
    """Positions in the training split in the order of one epoch, int64 [rows], on the CPU.

    `labels` int64 [rows] are those of the training split, on the CPU; -1 is a row without one. uniform: each position
    once. balanced: each class as often as the others (up to one row, another class each epoch), and each row of a class
    as often as its others (up to once); a row without a label comes once, as there is no class to count it for.
    """
    if sampling == "uniform":
        return permutation(len(labels), seed, stream, "order", epoch)
    stream_of_epoch = generator(seed, stream, "balanced order", epoch)
    shuffled = torch.randperm(len(labels), generator=stream_of_epoch)
    by_class = shuffled[labels[shuffled].argsort(stable=True)]  # unlabelled first, then class after class
    counts = torch.bincount(labels + 1, minlength=1)  # unlabelled first
    unlabelled = int(counts[0])
    starts, present = counts.cumsum(0) - counts, counts > 0
    present[0] = False
    starts, counts = starts[present], counts[present]
    rows, kinds = len(labels) - unlabelled, max(1, len(counts))
    turn = torch.randperm(len(counts), generator=stream_of_epoch)
    quota = rows // kinds + (turn < rows % kinds).long()  # [classes present]
    of_class = torch.repeat_interleave(quota)  # [labelled rows]
    place = torch.arange(rows) - (quota.cumsum(0) - quota)[of_class]
    drawn = by_class[starts[of_class] + place % counts[of_class]]
    drawn = torch.cat([by_class[:unlabelled], drawn])
    return drawn[torch.randperm(len(drawn), generator=stream_of_epoch)]


def balanced_weights(labels: Tensor, classes: int) -> Tensor:
    """n / (C · n_c) for each class, float32 [classes] on the device of `labels`; a class without rows gets 0.

    n counts the labelled rows, C the classes that have some, so the mean weight over the rows is 1 and the step size
    keeps its meaning (King and Zeng 2001, doi:10.1093/oxfordjournals.pan.a004868, §4.1, as scikit-learn scales it).
    """
    counts = torch.bincount(labels[labels >= 0], minlength=classes).double()
    present = counts > 0
    weights = counts.sum() / (present.sum() * counts.clamp(min=1))
    return torch.where(present, weights, torch.zeros_like(weights)).float()
