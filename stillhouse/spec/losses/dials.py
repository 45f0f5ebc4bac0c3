"""What the parameters of losses are made of."""

from typing import Annotated, ClassVar

from pydantic import Field

from stillhouse.spec.base import AUTO, Auto, Contract

Temperature = Annotated[float, Field(gt=0, le=100)]
Weight = Annotated[float, Field(ge=0, le=1e6)]


class LossParams(Contract):
    """What every loss has: a weight in the sum."""

    usual_weight: ClassVar[float] = 1.0
    """Beside the labels; what `auto` becomes. Each method's own, with its source in the docstring."""

    weight: Weight | Auto = AUTO
    """Share in the sum. auto: the method's usual one beside other losses, 1 alone."""


class Softened(LossParams):
    """A loss on distributions softened by a temperature."""

    temperature: Temperature | Auto = AUTO
    """T > 0. Higher softens both distributions. auto: 4, or the spec's own `temperature`."""
    standardize: bool = False
    """Give each row of logits mean 0 and deviation 1 first, so that the student need not match their size (Sun et al.
    2024, arXiv:2403.01427 §4)."""
