"""Cross-entropy with the true labels."""

import torch.nn.functional as F
from torch import Tensor

from distill.losses.registry import register
from distill.losses.softened import widen
from distill.losses.targets import Targets
from stillhouse.spec.losses import Ce


@register("ce", reads_teacher=False, reads_labels=True)
def _ce(params: Ce, student: Tensor, labels: Tensor | Targets, teacher: Tensor | None) -> Tensor:
    targets, smoothing = Targets.of(labels), params.label_smoothing
    if targets.plain:
        return ce(student, targets.labels, label_smoothing=smoothing)  # one kernel, with the mean in it
    return targets.mean(lambda y: ce_of_rows(student, y, targets.class_weights, label_smoothing=smoothing))


def ce(student: Tensor, labels: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """-Σ target · log softmax(student) at temperature 1, mean over rows, nats per row.

    `student` are logits [N, classes], `labels` int64 [N]; computed in float32 or wider. With smoothing ε the target
    is (1-ε) · one-hot + ε/classes (Szegedy et al. 2015, arXiv:1512.00567 §7).
    """
    return F.cross_entropy(widen(student), labels, label_smoothing=label_smoothing)


def ce_of_rows(
    student: Tensor, labels: Tensor, class_weights: Tensor | None, *, label_smoothing: float = 0.0
) -> Tensor:
    """`ce` of each row [N], times the weight [classes] of the row's own class.

    torch's own `weight` would divide by the weights of the batch, so that a row would count by its neighbours; and with
    smoothing it would weigh each class of the target instead of the row.
    """
    rows = F.cross_entropy(widen(student), labels, label_smoothing=label_smoothing, reduction="none")
    return rows if class_weights is None else rows * class_weights[labels]
