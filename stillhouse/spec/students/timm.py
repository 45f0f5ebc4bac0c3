"""Any architecture of the timm library, by its name."""

import difflib
import json
import math
from functools import cache
from importlib import resources
from typing import Annotated, ClassVar, Literal, NamedTuple, Self

from pydantic import Field, field_validator, model_validator

from stillhouse.spec.base import Contract
from stillhouse.spec.facts import DataFacts
from stillhouse.spec.secret import SecretRef
from stillhouse.spec.students.size import file_bytes

_CLASSES, _CHANNELS = 1000, 3
"""What the table was measured with."""


class TimmFacts(NamedTuple):
    """One line of the table `python -m distill.students.timm_catalogue` writes, in the order of its columns."""

    parameters: int
    """With 1000 classes, three channels and images of `side`."""
    per_class: int
    """Parameters one more class adds."""
    per_channel: int | None
    """Parameters one more input channel adds; None: it takes three and no other number."""
    buffers: int
    """Numbers its file holds beside the parameters."""
    tensors: int
    macs: int
    side: int
    """Pixels of the square it was designed for."""
    smallest: int
    """The smallest side that goes through."""
    grid: int | None
    """None: any image from `smallest`. 0: squares of `side` only. Else: squares of a multiple of this."""
    per_patch: int
    """Parameters one more patch of `grid` × `grid` adds."""
    pretrained: int
    """1 when timm knows published weights."""


class Timm(Contract):
    """An architecture of the timm library (Wightman 2019), by its name. `timm/resnet18` as a name is short for it.

    Weights start at random; published ones are downloaded only with `pretrained`. Multiply-adds are an estimate for
    other image sizes than the network's own.
    """

    tasks: ClassVar = ("image-classification",)

    name: Literal["timm"]
    architecture: Annotated[str, Field(min_length=1, max_length=100)]
    """As timm calls it, without the tag of published weights: resnet18, mobilenetv3_small_050, vit_tiny_patch16_224."""
    pretrained: bool = False
    """Start from the weights timm names as the usual ones, downloaded by the worker from the Hugging Face Hub."""
    # Left out where it is not given: digests of specs stay what they were, and workers of an older release read them.
    hub_token: Annotated[SecretRef | None, Field(exclude_if=lambda ref: ref is None)] = None
    """Token to show to the Hub when `pretrained` weights are downloaded, by the name of a secret of the project:
    `{"secret": "hub"}`. None: none is shown."""
    input_size: Annotated[int, Field(ge=8, le=1024)] | None = None
    """Enlarge each image to a square of this many pixels inside the network, bilinearly, before its first layer: many
    of these networks halve an image five times. None: as it is."""

    @field_validator("architecture")
    @classmethod
    def _known(cls, given: str) -> str:
        if given in timm_architectures():
            return given
        bare = given.removeprefix("timm/").partition(".")[0]
        close = difflib.get_close_matches(bare, timm_architectures(), n=3, cutoff=0.5)
        hint = f"; close names: {', '.join(close)}" if close else ""
        raise ValueError(f"timm has no classifier of this name{hint}")

    @model_validator(mode="after")
    def _token_has_a_use(self) -> Self:
        if self.hub_token is not None and not self.pretrained:
            raise ValueError(
                "hub_token: nothing is downloaded without `pretrained`; set that to true or leave this out"
            )
        return self

    @property
    def facts(self) -> TimmFacts:
        """What is known of the architecture."""
        return timm_architectures()[self.architecture]

    def fed(self, facts: DataFacts) -> tuple[int, int]:
        """Height and width at the first layer."""
        if self.input_size is not None:
            return self.input_size, self.input_size
        return facts.shape[1], facts.shape[2]

    def parameters(self, facts: DataFacts) -> int:
        """Weights and biases."""
        own = self.facts
        total = own.parameters + own.per_class * (len(facts.classes) - _CLASSES)
        total += (own.per_channel or 0) * (facts.shape[0] - _CHANNELS)
        if own.grid:
            height, width = self.fed(facts)
            total += own.per_patch * ((height // own.grid) * (width // own.grid) - (own.side // own.grid) ** 2)
        return total

    def macs(self, facts: DataFacts) -> int:
        """Multiply-adds of one image's forward pass, taken as proportional to its pixels: an estimate."""
        own, (height, width) = self.facts, self.fed(facts)
        head = own.per_class * _CLASSES
        body = max(0, own.macs - head) * height * width // own.side**2
        return body + own.per_class * len(facts.classes)

    def file_bytes(self, facts: DataFacts) -> int:
        """Bytes of its model.safetensors, rounded up."""
        return file_bytes(facts, numbers=self.parameters(facts) + self.facts.buffers, tensors=self.facts.tensors)

    def misfit(self, facts: DataFacts) -> str | None:
        """Why the network cannot take this data, or None."""
        if len(facts.shape) != 3:
            return "a timm network needs images; for a table use mlp"
        if self.facts.per_channel is None and facts.shape[0] != _CHANNELS:
            return f"{self.architecture} takes images of 3 channels, these have {facts.shape[0]}"
        if self.pretrained and not self.facts.pretrained:
            return f"timm knows no published weights of {self.architecture}; leave pretrained out"
        return self._size_misfit(facts)

    def _size_misfit(self, facts: DataFacts) -> str | None:
        own, (height, width), longer = self.facts, self.fed(facts), max(facts.shape[1:])
        if self.input_size is not None and self.input_size < longer:
            return f"input_size enlarges only; upload the images with image_size {self.input_size} to make them smaller"
        if own.grid is None:
            fits, wanted = min(height, width) >= own.smallest, f"at least {own.smallest}×{own.smallest}"
            enough = max(own.smallest, longer)
        elif own.grid == 0:
            fits, wanted, enough = height == width == own.side, f"{own.side}×{own.side}", own.side
        else:
            fits, wanted = height == width and height % own.grid == 0, f"a square of a multiple of {own.grid}"
            enough = math.ceil(longer / own.grid) * own.grid
        if fits:
            return None
        mend = f"input_size {enough} enlarges them" if enough >= longer else "choose a network for larger images"
        return f"{self.architecture} needs {wanted} pixels, it would get {height}×{width}; {mend}"


@cache
def timm_architectures() -> dict[str, TimmFacts]:
    """The closed registry: every classifier timm can build, by name."""
    table = json.loads(resources.files("stillhouse.spec").joinpath("timm_architectures.json").read_text("utf-8"))
    return {name: TimmFacts(*row) for name, row in table["architectures"].items()}
