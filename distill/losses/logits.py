"""Losses on raw logits, without a softmax."""

import torch.nn.functional as F
from torch import Tensor

from distill.losses.registry import register, teacher_logits
from distill.losses.softened import cosine, widen
from stillhouse.spec.losses import LogitCosine, LogitMse


@register("logit-mse", reads_teacher=True)
def _logit_mse(params: LogitMse, student: Tensor, labels: Tensor, teacher: Tensor | None) -> Tensor:
    return logit_mse(student, teacher_logits(params.kind, teacher))


@register("logit-cosine", reads_teacher=True)
def _logit_cosine(params: LogitCosine, student: Tensor, labels: Tensor, teacher: Tensor | None) -> Tensor:
    return logit_cosine(student, teacher_logits(params.kind, teacher))


def logit_mse(student: Tensor, teacher: Tensor) -> Tensor:
    """Σ (student - teacher)² / (N · classes) (Ba & Caruana 2014, arXiv:1312.6184 §2.2, as a mean).

    Logits [N, classes]; float32 or wider inside, no gradient to the teacher.
    """
    return F.mse_loss(widen(student), widen(teacher.detach()))


def logit_cosine(student: Tensor, teacher: Tensor) -> Tensor:
    """1 - cos(student, teacher), mean over rows; between 0 and 2.

    Logits [N, classes]; float32 or wider inside, no gradient to the teacher. A row of zeros counts as orthogonal.
    """
    return 1 - cosine(widen(student), widen(teacher.detach())).mean()
