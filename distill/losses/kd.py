"""Soft targets: the student imitates the teacher's softened distribution."""

import torch
import torch.nn.functional as F
from torch import Tensor

from distill.losses.registry import register
from stillhouse.spec import concrete
from stillhouse.spec.losses import Kd


@register("kd", reads_teacher=True)
def _kd(params: Kd, student: Tensor, labels: Tensor, teacher: Tensor | None) -> Tensor:
    if teacher is None:
        raise ValueError("the kd loss reads the teacher's logits, and none were given")
    return kd(student, teacher, temperature=concrete(params.temperature))


def kd(student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
    """T² · KL(softmax(teacher/T) ‖ softmax(student/T)), mean over rows (Hinton et al. 2015, arXiv:1503.02531 §2).

    `student` and `teacher` are logits [N, classes] of any float type; computed in float32 or wider, no gradient
    reaches the teacher. Nats per row, ≥ 0, and 0 where both distributions agree. T² keeps the gradient from
    vanishing as T grows: it tends to (student - teacher) / (classes · N) for centred logits (§2.1).
    """
    wide = torch.promote_types(student.dtype, torch.float32)  # a KL in bf16 can come out negative
    log_q = F.log_softmax(student.to(wide) / temperature, dim=-1)
    log_p = F.log_softmax(teacher.detach().to(wide) / temperature, dim=-1)
    kl = F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)
    # Between nearly equal distributions rounding can leave -1e-9: lift the value, keep the gradient.
    kl = kl + (kl.clamp(min=0) - kl).detach()
    return kl * temperature**2
