"""A dial of a loss that moves while a stage trains."""

import math
from typing import Annotated, Literal

from pydantic import Field

from stillhouse.spec.base import Contract

Number = Annotated[float, Field(ge=0, le=1e6)]


class Ramp(Contract):
    """From `start` at the first step to `end`, a pure function of the step: nothing of it needs to be remembered."""

    start: float
    end: float
    shape: Literal["linear", "cosine"] = "linear"
    """The way between the two: a straight line, or half a cosine, which sets out and arrives slowly."""
    until: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the stage's steps after which `end` is reached; it is kept for the rest."""

    def at(self, done: float) -> float:
        """Its value when a share `done`, 0 to 1, of the stage's steps is done."""
        way = min(1.0, done / self.until)
        if self.shape == "cosine":
            way = (1 - math.cos(math.pi * way)) / 2
        return self.start + (self.end - self.start) * way


class WeightRamp(Ramp):
    """A weight that moves from `start` to `end` while a stage trains."""

    start: Number
    end: Number


class TemperatureRamp(Ramp):
    """A temperature that moves from `start` to `end` while a stage trains. It never comes to 0."""

    start: Annotated[float, Field(gt=0.001, le=100)]
    end: Annotated[float, Field(gt=0.001, le=100)]


def at(dial: float | Ramp, done: float) -> float:
    """The value of a dial, moving or not, when a share `done` of the stage's steps is done."""
    return dial.at(done) if isinstance(dial, Ramp) else dial


def ever(dial: float | Ramp) -> bool:
    """True when a weight is above 0 at some step."""
    return dial.start > 0 or dial.end > 0 if isinstance(dial, Ramp) else dial > 0
