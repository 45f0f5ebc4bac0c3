"""Losses on hidden layers: the student's representation follows the teacher's.

The usual weights are those of the CRD benchmark (Tian et al. 2020, arXiv:1910.10699, and its code RepDistiller), where
each stands beside ce of weight 1, unless another source is named.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from stillhouse.spec.losses.layers import Layered


class Fitnet(Layered):
    """Hints (Romero et al. 2015, arXiv:1412.6550): mean squared difference between the teacher's layer and a linear map
    of the student's, a 1×1 convolution trained beside it. auto: the middle stage."""

    # Published: 100. Half a point to a point worse on held-out images, with few labels (benchmarks/RESULTS.md).
    usual_weight: ClassVar[float] = 1.0
    kind: Literal["fitnet"]


class AttentionTransfer(Layered):
    """Attention transfer (Zagoruyko & Komodakis 2017, arXiv:1612.03928): mean squared difference of the maps of where
    the networks look, mean over channels of |feature|^p, each scaled to length 1. For maps. auto: every stage."""

    # Published: 1000. Ten points worse on held-out images, with few labels (benchmarks/RESULTS.md).
    usual_weight: ClassVar[float] = 10.0
    kind: Literal["attention-transfer"]
    power: Annotated[float, Field(ge=1, le=8)] = 2.0
    """p: higher looks at the strongest features only."""


class Review(Layered):
    """Knowledge review (Chen et al. 2021, arXiv:2104.09044): the student's stages are fused from deep to shallow by
    attention, and each result is compared with the teacher's stage at several scales. auto: every stage and the
    penultimate layer."""

    # The paper takes 0.6 to 8, network by network (its code, and mdistiller's configs).
    usual_weight: ClassVar[float] = 1.0
    kind: Literal["review"]
    max_channels: Annotated[int, Field(ge=1, le=4096)] = 512
    """Channels of the fused maps: as many as the student's deepest layer has, and no more than this."""


class Vid(Layered):
    """Variational information distillation (Ahn et al. 2019, arXiv:1904.05835): the teacher's layer under a Gaussian
    whose mean is a small network of the student's, with a variance learned for each channel: its negative log
    likelihood, which may be below 0. auto: every stage."""

    usual_weight: ClassVar[float] = 1.0
    kind: Literal["vid"]
    initial_variance: Annotated[float, Field(gt=1e-3, le=1e3)] = 5.0
    """σ² at the start."""


class Nst(Layered):
    """Neuron selectivity transfer (Huang & Wang 2017, arXiv:1707.01219): squared maximum mean discrepancy between the
    channels of both networks, each a map scaled to length 1, under the kernel (x·y)². For maps. auto: every stage."""

    # Published: 50. Half a point to a point worse on held-out images, with few labels (benchmarks/RESULTS.md).
    usual_weight: ClassVar[float] = 5.0
    kind: Literal["nst"]
