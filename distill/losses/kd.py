"""Soft targets: the student imitates the teacher's softened distribution."""

from torch import Tensor

from distill.losses.registry import register, teacher_logits
from distill.losses.softened import kl, log_softened
from stillhouse.spec.losses import Kd


@register("kd", reads_teacher=True)
def _kd(params: Kd, student: Tensor, labels: Tensor, teacher: Tensor | None) -> Tensor:
    given = teacher_logits(params.kind, teacher)
    return kd(student, given, temperature=params.heat, standardize=params.standardize)


def kd(student: Tensor, teacher: Tensor, *, temperature: float, standardize: bool = False) -> Tensor:
    """T² · KL(softmax(teacher/T) ‖ softmax(student/T)), mean over rows (Hinton et al. 2015, arXiv:1503.02531 §2).

    `student` and `teacher` are logits [N, classes] of any float type; computed in float32 or wider, no gradient
    reaches the teacher. Nats per row, ≥ 0, and 0 where both distributions agree. T² keeps the gradient from
    vanishing as T grows: it tends to (student - teacher) / (classes · N) for centred logits (§2.1).
    """
    log_q = log_softened(student, temperature=temperature, standardize=standardize)
    log_p = log_softened(teacher.detach(), temperature=temperature, standardize=standardize)
    return kl(log_p, log_q) * temperature**2
