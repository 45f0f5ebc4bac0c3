"""Generalised Jensen-Shannon divergence: between the two directions of KL, and bounded."""

import math

import torch
from torch import Tensor

from distill.losses.registry import register, teacher_logits
from distill.losses.softened import kl, log_softened
from stillhouse.spec.losses import Jsd


@register("jsd", reads_teacher=True)
def _jsd(params: Jsd, student: Tensor, labels: Tensor, teacher: Tensor | None) -> Tensor:
    given = teacher_logits(params.kind, teacher)
    return jsd(
        student,
        given,
        beta=params.beta,
        temperature=params.heat,
        standardize=params.standardize,
    )


def jsd(student: Tensor, teacher: Tensor, *, beta: float, temperature: float, standardize: bool = False) -> Tensor:
    """T² · (β·KL(p ‖ m) + (1-β)·KL(q ‖ m)), m = β·p + (1-β)·q, mean over rows (arXiv:2306.13649 eq. 1).

    p is the teacher's, q the student's softmax at T. Logits [N, classes]; float32 or wider inside, no gradient to the
    teacher. Both limits, β → 0 and β → 1, give 0: divide by β or 1-β to compare with a KL.
    """
    log_q = log_softened(student, temperature=temperature, standardize=standardize)
    log_p = log_softened(teacher.detach(), temperature=temperature, standardize=standardize)
    log_m = torch.logaddexp(log_p + math.log(beta), log_q + math.log1p(-beta))
    return (beta * kl(log_p, log_m) + (1 - beta) * kl(log_q, log_m)) * temperature**2
