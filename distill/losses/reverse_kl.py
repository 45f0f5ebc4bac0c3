"""Soft targets the other way round: the student seeks what the teacher is sure of."""

from torch import Tensor

from distill.losses.registry import register, teacher_logits
from distill.losses.softened import kl, log_softened
from stillhouse.spec.losses import ReverseKl


@register("reverse-kl", reads_teacher=True)
def _reverse_kl(params: ReverseKl, student: Tensor, labels: Tensor, teacher: Tensor | None) -> Tensor:
    given = teacher_logits(params.kind, teacher)
    return reverse_kl(student, given, temperature=params.heat, standardize=params.standardize)


def reverse_kl(student: Tensor, teacher: Tensor, *, temperature: float, standardize: bool = False) -> Tensor:
    """T² · KL(softmax(student/T) ‖ softmax(teacher/T)), mean over rows (MiniLLM, arXiv:2306.08543 §2.1).

    Logits [N, classes]; float32 or wider inside, no gradient to the teacher; nats per row, ≥ 0.
    """
    log_q = log_softened(student, temperature=temperature, standardize=standardize)
    log_p = log_softened(teacher.detach(), temperature=temperature, standardize=standardize)
    return kl(log_q, log_p) * temperature**2
