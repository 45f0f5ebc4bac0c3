"""A plain convolutional network."""

from itertools import pairwise
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from stillhouse.spec.base import Contract, DropoutRate, LaxTuple
from stillhouse.spec.facts import DataFacts
from stillhouse.spec.students.size import file_bytes


class Cnn(Contract):
    """Blocks of 3×3 convolution, batch norm, ReLU; 2×2 max pool between blocks; global average; linear."""

    tasks: ClassVar = ("image-classification",)

    name: Literal["cnn"]
    channels: Annotated[
        tuple[Annotated[int, Field(ge=1, le=4096)], ...], LaxTuple, Field(min_length=1, max_length=16)
    ] = (16, 32, 64)
    """Output channels of each block."""
    dropout: DropoutRate = 0.0
    """Share of pooled features dropped before the last layer while training."""

    def parameters(self, facts: DataFacts) -> int:
        """Convolutions carry no bias: the batch norm after each has one."""
        planes = (facts.shape[0], *self.channels)
        blocks = sum(9 * a * b + 2 * b for a, b in pairwise(planes))
        return blocks + (self.channels[-1] + 1) * len(facts.classes)

    def macs(self, facts: DataFacts) -> int:
        """Multiply-adds of one image's forward pass, in convolutions and the linear layer."""
        planes, (height, width) = (facts.shape[0], *self.channels), facts.shape[1:]
        convolutions = sum(
            9 * a * b * (height >> block) * (width >> block) for block, (a, b) in enumerate(pairwise(planes))
        )
        return convolutions + self.channels[-1] * len(facts.classes)

    def file_bytes(self, facts: DataFacts) -> int:
        """Bytes of its model.safetensors, rounded up."""
        blocks = len(self.channels)
        numbers = self.parameters(facts) + 2 * sum(self.channels)
        return file_bytes(facts, numbers=numbers, tensors=5 * blocks + 2, norms=blocks)

    def misfit(self, facts: DataFacts) -> str | None:
        """Each pool halves the image, so there must be something left to halve."""
        if len(facts.shape) != 3:
            return "a cnn needs images; for a table use mlp"
        needed = 2 ** (len(self.channels) - 1)
        if min(facts.shape[1:]) < needed:
            pools, (height, width) = len(self.channels) - 1, facts.shape[1:]
            return (
                f"{len(self.channels)} blocks halve the image {pools} times and need at least "
                f"{needed}×{needed} pixels; these are {height}×{width}"
            )
        return None
