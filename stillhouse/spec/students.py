"""The architectures a student (or a teacher trained here) can have: their dials, their size, what they fit.

The size is a closed form, so that the API can refuse a network beyond the limits without torch; a test holds
each formula against the module the engine builds.
"""

from itertools import pairwise
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from stillhouse.spec.base import Contract, DropoutRate, LaxTuple
from stillhouse.spec.facts import DataFacts

Width = Annotated[int, Field(ge=1, le=65_536)]


class Mlp(Contract):
    """Linear layers with ReLU between them; images are flattened."""

    tasks: ClassVar = ("image-classification", "tabular-classification")

    name: Literal["mlp"]
    hidden: Annotated[tuple[Width, ...], LaxTuple, Field(min_length=0, max_length=32)] = (64,)
    """Units of each hidden layer, from input to output. Empty: softmax regression."""
    dropout: DropoutRate = 0.0
    """Share of hidden units dropped while training."""

    def parameters(self, facts: DataFacts) -> int:
        """Weights and biases of all layers."""
        sizes = (facts.inputs, *self.hidden, len(facts.classes))
        return sum(a * b + b for a, b in pairwise(sizes))

    def macs(self, facts: DataFacts) -> int:
        """Multiply-adds of one row's forward pass, in the linear layers."""
        sizes = (facts.inputs, *self.hidden, len(facts.classes))
        return sum(a * b for a, b in pairwise(sizes))

    def misfit(self, facts: DataFacts) -> str | None:
        """Why the network cannot take this data, or None."""
        return None


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


class Resnet(Contract):
    """The CIFAR residual network of He et al. 2015 (arXiv:1512.03385 §4.2): 6n+2 layers, parameter-free shortcuts."""

    tasks: ClassVar = ("image-classification",)

    name: Literal["resnet"]
    depth: Literal[8, 14, 20, 26, 32, 44, 56, 110] = 20
    """Layers: 6n+2, with n blocks in each of the three stages."""
    width: Annotated[int, Field(ge=1, le=1024)] = 16
    """Channels of the first stage; the next have twice and four times as many."""

    def parameters(self, facts: DataFacts) -> int:
        """Stem, three stages of n two-convolution blocks, linear."""
        n, w = (self.depth - 2) // 6, self.width
        total = 9 * facts.shape[0] * w + 2 * w
        for before, after in ((w, w), (w, 2 * w), (2 * w, 4 * w)):
            total += 9 * before * after + 9 * after * after * (2 * n - 1) + 2 * after * 2 * n
        return total + (4 * w + 1) * len(facts.classes)

    def macs(self, facts: DataFacts) -> int:
        """Multiply-adds of one image's forward pass, in convolutions and the linear layer."""
        n, w, (height, width) = (self.depth - 2) // 6, self.width, facts.shape[1:]
        total = 9 * facts.shape[0] * w * height * width
        for before, after in ((w, w), (w, 2 * w), (2 * w, 4 * w)):
            if after > before:  # a stride of 2 rounds up
                height, width = (height + 1) // 2, (width + 1) // 2
            total += (9 * before * after + 9 * after * after * (2 * n - 1)) * height * width
        return total + 4 * w * len(facts.classes)

    def misfit(self, facts: DataFacts) -> str | None:
        """Two stages halve the image."""
        if len(facts.shape) != 3:
            return "a resnet needs images; for a table use mlp"
        if min(facts.shape[1:]) < 4:
            height, width = facts.shape[1:]
            return f"a resnet halves the image twice and needs at least 4×4 pixels; these are {height}×{width}"
        return None


Architecture = Annotated[Mlp | Cnn | Resnet, Field(discriminator="name")]
"""Any architecture, told apart by `name`."""

STUDENTS: dict[str, type[Mlp] | type[Cnn] | type[Resnet]] = {"mlp": Mlp, "cnn": Cnn, "resnet": Resnet}
"""The closed catalogue; the engine registers a builder for each of these names."""
