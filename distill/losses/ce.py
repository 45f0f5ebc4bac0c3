"""Cross-entropy with the true labels."""

import torch.nn.functional as F
from torch import Tensor

from distill.losses.registry import register
from distill.losses.softened import widen
from stillhouse.spec.losses import Ce


@register("ce", reads_teacher=False)
def _ce(params: Ce, student: Tensor, labels: Tensor, teacher: Tensor | None) -> Tensor:
    return ce(student, labels, label_smoothing=params.label_smoothing)


def ce(student: Tensor, labels: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """-Σ target · log softmax(student) at temperature 1, mean over rows, nats per row.

    `student` are logits [N, classes], `labels` int64 [N]; computed in float32 or wider. With smoothing ε the target
    is (1-ε) · one-hot + ε/classes (Szegedy et al. 2015, arXiv:1512.00567 §7).
    """
    return F.cross_entropy(widen(student), labels, label_smoothing=label_smoothing)
