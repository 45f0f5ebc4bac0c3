"""What the parameters of losses are made of."""

from typing import Annotated, ClassVar, Self

from pydantic import Field

from stillhouse.spec.base import AUTO, Auto, Contract
from stillhouse.spec.losses.ramp import TemperatureRamp, WeightRamp

Temperature = Annotated[float, Field(gt=0.001, le=100)]  # colder, T² and logits ÷ T leave what 32 bits can hold
Weight = Annotated[float, Field(ge=0, le=1e6)]


class LossParams(Contract):
    """What every loss has: a weight in the sum."""

    usual_weight: ClassVar[float] = 1.0
    """Beside the labels; what `auto` becomes. Each method's own, with its source in the docstring."""

    of_buckets: ClassVar[bool] = False
    """True when it can do with the largest of the teacher's outputs and the sum of the rest (`teacher_outputs.top_k`):
    a divergence between distributions is one between buckets too."""

    weight: Weight | WeightRamp | Auto = AUTO
    """Share in the sum, or how it moves over the stage's steps. auto: the method's usual one beside other losses, 1
    alone."""

    @property
    def share(self) -> float | WeightRamp:
        """The weight of a resolved loss. Raises ValueError while it is `auto`."""
        if isinstance(self.weight, str):
            raise ValueError("this spec is not resolved: a weight is still auto")
        return self.weight


class Softened(LossParams):
    """A loss on distributions softened by a temperature."""

    temperature: Temperature | TemperatureRamp | Auto = AUTO
    """T > 0, or how it moves over the stage's steps. Higher softens both distributions. auto: 4, or the spec's own
    `temperature`."""
    standardize: bool = False
    """Give each row of logits mean 0 and deviation 1 first, so that the student need not match their size (Sun et al.
    2024, arXiv:2403.01427 §4)."""

    @property
    def course(self) -> float | TemperatureRamp:
        """The temperature of a resolved loss, moving or not. Raises ValueError while it is `auto`."""
        if isinstance(self.temperature, str):
            raise ValueError("this spec is not resolved: a temperature is still auto")
        return self.temperature

    @property
    def heat(self) -> float:
        """The temperature, of a loss in which it stands still. Raises ValueError where it moves."""
        if isinstance(self.course, TemperatureRamp):
            raise ValueError("the temperature moves: take the loss `at` a step")
        return self.course

    def at(self, done: float) -> Self:
        """The same loss when a share `done` of the stage's steps is done."""
        if not isinstance(self.course, TemperatureRamp):
            return self
        return self.model_copy(update={"temperature": self.course.at(done)})
