"""Losses on outputs: the student imitates what the teacher answers, or the labels."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from stillhouse.spec.losses.dials import LossParams, Softened


class Kd(Softened):
    """Soft targets (Hinton, Vinyals, Dean 2015, arXiv:1503.02531): T² · KL(teacher/T ‖ student/T), mean over rows."""

    # The usual share of the soft targets, as in the CRD benchmark (arXiv:1910.10699).
    usual_weight: ClassVar[float] = 0.9
    of_buckets: ClassVar[bool] = True
    kind: Literal["kd"]


class ReverseKl(Softened):
    """Soft targets the other way round (as in MiniLLM, arXiv:2306.08543): T² · KL(student/T ‖ teacher/T), mean over
    rows. The student may leave out what the teacher finds possible, but invents nothing."""

    usual_weight: ClassVar[float] = 0.9
    of_buckets: ClassVar[bool] = True
    kind: Literal["reverse-kl"]


class Jsd(Softened):
    """Generalised Jensen-Shannon divergence (Agarwal et al. 2023, arXiv:2306.13649): T² · (β·KL(p ‖ m) + (1-β)·KL(q ‖
    m)) with p the teacher, q the student, m = β·p + (1-β)·q, mean over rows. Never above T²·ln 2."""

    usual_weight: ClassVar[float] = 0.9
    of_buckets: ClassVar[bool] = True
    kind: Literal["jsd"]
    beta: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """0 < β < 1. Near 0 it pulls like KL(p ‖ q), near 1 like KL(q ‖ p), in both cases ever more weakly."""


class LogitMse(LossParams):
    """Mean squared difference of the logits over rows and classes (Ba & Caruana 2014, arXiv:1312.6184; Kim et al. 2021,
    arXiv:2105.08919)."""

    kind: Literal["logit-mse"]


class LogitCosine(LossParams):
    """1 - cosine of the angle between the logits of student and teacher, mean over rows: direction without size."""

    kind: Literal["logit-cosine"]


class Dkd(Softened):
    """Decoupled distillation (Zhao et al. 2022, arXiv:2203.08679): T² · (α · KL of target against rest + β · KL
    among the other classes), mean over rows."""

    # Published: 1, after a warm-up. Tenths of a point worse on held-out images, with few labels
    # (benchmarks/RESULTS.md).
    usual_weight: ClassVar[float] = 0.1
    kind: Literal["dkd"]
    alpha: Annotated[float, Field(ge=0, le=1000)] = 1.0
    """Weight of how sure the teacher is of the label."""
    beta: Annotated[float, Field(ge=0, le=1000)] = 8.0
    """Weight of how it ranks the other classes; 1 to 8 in the paper, more for a surer teacher."""


class Dist(Softened):
    """Relations instead of values (Huang et al. 2022, arXiv:2205.10536): T² · (β · (1 - correlation across classes,
    per row) + γ · (1 - correlation across the batch, per class))."""

    kind: Literal["dist"]
    beta: Annotated[float, Field(ge=0, le=1000)] = 1.0
    """Weight of the relation between classes."""
    gamma: Annotated[float, Field(ge=0, le=1000)] = 1.0
    """Weight of the relation between rows; 0 for a batch of one row."""


class Ce(LossParams):
    """Cross-entropy with the true labels at temperature 1, mean over rows. Its usual weight is 0.1 beside a divergence
    from the teacher (kd, reverse-kl, jsd), else 1."""

    kind: Literal["ce"]
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """ε: the target becomes (1-ε)·one-hot + ε/classes (Szegedy et al. 2015, arXiv:1512.00567)."""
