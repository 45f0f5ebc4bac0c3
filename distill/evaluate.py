"""What a network gets right, measured in float32 and eval mode."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill.data import Dataset
from stillhouse.spec.errors import JobFailure
from stillhouse.spec.facts import Split


@dataclass(frozen=True)
class Score:
    """A network on one split."""

    loss: float
    """Cross-entropy with the labels, nats per row."""
    correct: int
    rows: int
    classes: Tensor
    """The class it gives each row, int64 [rows], on the device."""

    @property
    def accuracy(self) -> float:
        """Share of rows classified right."""
        return self.correct / self.rows


@torch.no_grad()
def score(net: nn.Module, data: Dataset, split: Split, *, between: Callable[[], None] = lambda: None) -> Score:
    """Run `net` over a split that is not empty, and leave it in eval mode. `between` is called after each chunk.

    Raises JobFailure `outputs_not_finite`.
    """
    net.eval()
    loss = torch.zeros((), dtype=torch.float64, device=data.x.device)
    finite = torch.ones((), dtype=torch.bool, device=data.x.device)
    # One place for all answers, as in `measure`: small tensors kept from each chunk would make the heap grow.
    given, done = torch.empty(len(data.rows[split]), dtype=torch.int64, device=data.x.device), 0
    for rows in data.chunks(split):
        logits = net(data.inputs(rows))  # [n, classes]
        loss += F.cross_entropy(logits, data.y[rows], reduction="sum")
        finite &= logits.isfinite().all()
        given[done : done + len(rows)] = logits.argmax(1)
        done += len(rows)
        between()
    correct = (given == data.y[data.rows[split]]).sum()
    if not finite:
        raise not_finite(f"on the {split} split")
    return Score(float(loss) / len(given), int(correct), len(given), given)


def score_of(logits: Tensor, data: Dataset, split: Split) -> Score:
    """The score of a network that has given these `logits` [rows of the split, classes], float32 and finite."""
    labels = data.y[data.rows[split]]
    given = logits.argmax(1)
    loss = F.cross_entropy(logits.double(), labels)
    return Score(float(loss), int((given == labels).sum()), len(given), given)


def not_finite(where: str) -> JobFailure:
    """A network gave NaN or infinity. In training the loss is looked at first, so this is about the weights."""
    return JobFailure(
        "outputs_not_finite",
        f"A model gave NaN or infinite outputs {where}.",
        hint="Lower the learning rate or train in fp32; if the teacher was uploaded, check its weights.",
    )


def wilson(correct: int, rows: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927): sound for few rows and for shares near 0 and 1."""
    z, share = 1.959963984540054, correct / rows
    centre = share + z * z / (2 * rows)
    half = z * math.sqrt(share * (1 - share) / rows + z * z / (4 * rows * rows))
    scale = 1 + z * z / rows
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)
