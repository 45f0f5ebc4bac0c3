"""What is known of the classes of a batch, for the losses that read labels."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Targets:
    """One label per row or none, what a class weighs, and, for mixed images, the label of what was mixed in."""

    labels: Tensor
    """int64 [N]; -1 where the row has no label."""
    class_weights: Tensor | None = None
    """float32 [classes]; read by ce alone. None: every class counts 1."""
    partial: bool = False
    """True when rows without a label may occur."""
    mixed_in: Tensor | None = None
    """int64 [N]: labels of the images mixed in, which have one where the row has."""
    share: float = 1.0
    """Share λ of the row itself in a mixed image; `mixed_in` has the rest."""

    @classmethod
    def of(cls, labels: "Tensor | Targets") -> "Targets":
        """Labels alone, or already with all that is known beside them."""
        return labels if isinstance(labels, Targets) else cls(labels)

    @property
    def plain(self) -> bool:
        """True when the labels say it all."""
        return self.class_weights is None and not self.partial and self.mixed_in is None

    def mean(self, per_row: Callable[[Tensor], Tensor]) -> Tensor:
        """λ · loss(label) + (1-λ) · loss(label mixed in), mean over the rows that have a label; 0 when none has.

        `per_row` takes labels int64 [N], all of them valid, and gives the loss of each row [N].
        """
        value = per_row(self.labels.clamp(min=0))
        if self.mixed_in is not None:
            value = self.share * value + (1 - self.share) * per_row(self.mixed_in.clamp(min=0))
        if not self.partial:
            return value.mean()
        known = self.labels >= 0
        # torch.where, not a product: what an unlabelled row makes of label 0 must not matter, infinity neither.
        return torch.where(known, value, torch.zeros_like(value)).sum() / known.sum().clamp(min=1)
