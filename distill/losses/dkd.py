"""Decoupled distillation: how sure the teacher is of the label, and how it ranks the rest, weighed apart."""

import torch
import torch.nn.functional as F
from torch import Tensor

from distill.losses.registry import register, teacher_logits
from distill.losses.softened import standardized, widen
from distill.losses.targets import Targets
from stillhouse.spec.losses import Dkd


@register("dkd", reads_teacher=True, reads_labels=True)
def _dkd(params: Dkd, student: Tensor, labels: Tensor | Targets, teacher: Tensor | None) -> Tensor:
    given, temperature = teacher_logits(params.kind, teacher), params.heat
    mean = Targets.of(labels).mean(
        lambda y: dkd_of_rows(
            student,
            given,
            y,
            alpha=params.alpha,
            beta=params.beta,
            temperature=temperature,
            standardize=params.standardize,
        )
    )
    return mean * temperature**2


def dkd(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    *,
    alpha: float,
    beta: float,
    temperature: float,
    standardize: bool = False,
) -> Tensor:
    """T² · (α·TCKD + β·NCKD), mean over rows (Zhao et al. 2022, arXiv:2203.08679 eq. 7).

    TCKD is the KL of (label, all others) and NCKD the KL among the others, renormalised. Logits [N, classes], `labels`
    int64 [N]; float32 or wider inside, never log(softmax), no gradient to the teacher. With α = 1 and β = 1 - p(label)
    of the teacher it is the kd loss. With two classes NCKD is 0.
    """
    rows = dkd_of_rows(
        student, teacher, labels, alpha=alpha, beta=beta, temperature=temperature, standardize=standardize
    )
    return rows.mean() * temperature**2


def dkd_of_rows(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    *,
    alpha: float,
    beta: float,
    temperature: float,
    standardize: bool,
) -> Tensor:
    """α·TCKD + β·NCKD of each row [N], without the T² of `dkd`."""
    log_q, rest_q = _decoupled(student, labels, temperature, standardize)
    log_p, rest_p = _decoupled(teacher.detach(), labels, temperature, standardize)
    target = (log_p.exp() * (log_p - log_q)).sum(1)
    others = (rest_p.exp() * (rest_p - rest_q)).sum(1)
    return alpha * target + beta * others


def _decoupled(logits: Tensor, labels: Tensor, temperature: float, standardize: bool) -> tuple[Tensor, Tensor]:
    """log (label, rest) [N, 2], and the log distribution of the rest [N, classes - 1]."""
    wide = widen(logits)
    z = (standardized(wide) if standardize else wide) / temperature
    rows, classes = z.shape
    is_rest = torch.ones_like(z, dtype=torch.bool).scatter_(1, labels.unsqueeze(1), False)
    rest = z[is_rest].view(rows, classes - 1)
    label = z.gather(1, labels.unsqueeze(1))
    pair = torch.cat([label, rest.logsumexp(1, keepdim=True)], dim=1)
    return F.log_softmax(pair, dim=1), F.log_softmax(rest, dim=1)
