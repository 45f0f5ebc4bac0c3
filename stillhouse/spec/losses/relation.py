"""Losses on relations: how rows of a batch lie to each other, whatever the sizes of the layers. auto compares the
penultimate layers.

The usual weights are those of the CRD benchmark (Tian et al. 2020, arXiv:1910.10699, and its code RepDistiller, batches
of 64), where each stands beside ce of weight 1, unless another source is named.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from stillhouse.spec.losses.layers import Layered


class Rkd(Layered):
    """Relational distillation (Park et al. 2019, arXiv:1904.05068): smooth-L1 difference of the distances between rows,
    in units of their mean, and of the angles that three rows form."""

    usual_weight: ClassVar[float] = 1.0
    kind: Literal["rkd"]
    distance: Annotated[float, Field(ge=0, le=1e4)] = 25.0
    """Weight of the distances."""
    angle: Annotated[float, Field(ge=0, le=1e4)] = 50.0
    """Weight of the angles."""


class Similarity(Layered):
    """Similarity preservation (Tung & Mori 2019, arXiv:1907.09682): squared difference of the similarity matrices of
    the batch, rows scaled to length 1, ÷ B². As published, it falls with the batch size as 1/B."""

    usual_weight: ClassVar[float] = 3000.0
    kind: Literal["similarity"]


class Pkt(Layered):
    """Probabilistic knowledge transfer (Passalis & Tefas 2018, arXiv:1803.10837): KL between the odds with which each
    row finds the others, by the cosine of their features, ÷ B². As in its released code, it falls with the batch size
    as 1/B."""

    usual_weight: ClassVar[float] = 30_000.0
    kind: Literal["pkt"]


class Cc(Layered):
    """Correlation congruence (Peng et al. 2019, arXiv:1904.01802): mean squared difference of the Gaussian kernel
    matrices of the batch, features scaled to length 1, the kernel by its Taylor series."""

    # The benchmark's 0.02 belongs to another formula than the paper's, and the paper's 0.003 to features it does not
    # scale. With 400 the pull is that of `similarity` at its usual weight in batches of 64.
    usual_weight: ClassVar[float] = 400.0
    kind: Literal["cc"]
    gamma: Annotated[float, Field(gt=0, le=10)] = 0.4
    """γ of exp(-γ · ‖x-y‖²)."""
    order: Annotated[int, Field(ge=1, le=10)] = 2
    """Terms of the series after the first."""


class Crd(Layered):
    """Contrastive representation distillation (Tian et al. 2020, arXiv:1910.10699): a row of the student is told from
    those of other classes by the teacher's representation of it, and the other way round. Remembers every training row
    twice: 8 · dim bytes each."""

    usual_weight: ClassVar[float] = 0.8
    kind: Literal["crd"]
    negatives: Annotated[int, Field(ge=1, le=1_000_000)] = 16_384
    """Rows drawn per step to be told apart; at most the training split has."""
    temperature: Annotated[float, Field(gt=0, le=10)] = 0.07
    """τ of the similarity; nothing to do with the temperature of soft targets."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Share of the old in what is remembered of a row."""
    dim: Annotated[int, Field(ge=2, le=4096)] = 128
    """Dimensions in which both are compared."""
