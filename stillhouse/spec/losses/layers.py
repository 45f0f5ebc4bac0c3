"""Losses that look inside the networks: which layers of student and teacher they compare."""

from typing import Annotated

from pydantic import Field, StringConstraints

from stillhouse.spec import forms
from stillhouse.spec.base import AUTO, Auto, Contract, LaxTuple
from stillhouse.spec.losses.dials import LossParams

LayerPath = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=forms.LAYER_PATH)]


class LayerPair(Contract):
    """A layer of the student and the layer of the teacher whose output it learns from."""

    student: LayerPath
    """Path as torch's `named_modules()` gives it, such as `network.2`."""
    teacher: LayerPath


class Layered(LossParams):
    """A loss on the outputs of layers; over several pairs it is summed."""

    layers: Annotated[tuple[LayerPair, ...], LaxTuple, Field(min_length=1, max_length=32)] | Auto = AUTO
    """Which layers are compared. auto: by stage and shape; the report names those that were taken."""
