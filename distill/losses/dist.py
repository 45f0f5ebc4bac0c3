"""Relations instead of values: how classes and rows compare, not how large the numbers are."""

from torch import Tensor

from distill.losses.registry import register, teacher_logits
from distill.losses.softened import centred, cosine, log_softened
from stillhouse.spec.losses import Dist


@register("dist", reads_teacher=True)
def _dist(params: Dist, student: Tensor, labels: Tensor, teacher: Tensor | None) -> Tensor:
    given = teacher_logits(params.kind, teacher)
    return dist(
        student,
        given,
        beta=params.beta,
        gamma=params.gamma,
        temperature=params.heat,
        standardize=params.standardize,
    )


def dist(
    student: Tensor,
    teacher: Tensor,
    *,
    beta: float,
    gamma: float,
    temperature: float,
    standardize: bool = False,
) -> Tensor:
    """T² · (β · mean over rows of 1-ρ across classes + γ · mean over classes of 1-ρ across rows), ρ Pearson's
    correlation of the softmax at T (Huang et al. 2022, arXiv:2205.10536 eq. 9; T² as in its released code).

    Logits [N, classes]; float32 or wider inside, no gradient to the teacher. One row has no relation to others: its
    second term is 0. A row or a class whose probabilities are all equal has none either: its ρ is 0.
    """
    q = log_softened(student, temperature=temperature, standardize=standardize).exp()
    p = log_softened(teacher.detach(), temperature=temperature, standardize=standardize).exp()
    total = beta * (1 - _correlation(q, p)).mean()
    if len(q) > 1:
        total = total + gamma * (1 - _correlation(q.T, p.T)).mean()
    return total * temperature**2


def _correlation(a: Tensor, b: Tensor) -> Tensor:
    """Pearson's ρ of each row of `a` [M, K] with the same row of `b`; 0 where one of them is constant."""
    return cosine(centred(a)[0], centred(b)[0])
