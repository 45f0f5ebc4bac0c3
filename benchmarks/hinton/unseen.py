"""Students that never saw some digits, before and after their bias is corrected."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

import distill
from benchmarks.hinton.mnist import Images
from benchmarks.hinton.priors import shift, shifted

_ROWS = 1000


@dataclass(frozen=True)
class Correction:
    """What adding one number to some classes' logits changes on the test images."""

    by: float
    errors: tuple[int, int]
    """Of all test images, before and after."""
    errors_on_classes: tuple[int, int]
    """Of the test images of these classes."""


def correct(student: Path, classes: tuple[int, ...], share: float, train: Images, test: Images) -> Correction:
    """Give `classes` the mean probability `share` over all training images, whose labels are not looked at."""
    by = shift(logits(student, train), classes, share)
    before = logits(student, test)
    wrong = [out.argmax(axis=1) != test.y for out in (before, shifted(before, classes, by))]
    here = np.isin(test.y, classes)
    return Correction(
        by=by,
        errors=(int(wrong[0].sum()), int(wrong[1].sum())),
        errors_on_classes=(int(wrong[0][here].sum()), int(wrong[1][here].sum())),
    )


def share_of(classes: tuple[int, ...], train: Images) -> float:
    """The prior: how often these digits are drawn from the source of the images."""
    return float(np.isin(train.y, classes).mean())


@torch.no_grad()
def logits(model: Path, images: Images) -> NDArray[np.float32]:
    """Logits [N, classes] of the model in this folder."""
    net = distill.load(model)
    parts = [net(torch.tensor(images.x[i : i + _ROWS], dtype=torch.float32)) for i in range(0, len(images.y), _ROWS)]
    out: NDArray[np.float32] = torch.cat(parts).numpy()
    return out
