"""Inverted residuals for small images."""

from typing import Annotated, ClassVar, Literal, NamedTuple

from pydantic import Field

from stillhouse.spec.base import Contract
from stillhouse.spec.facts import DataFacts
from stillhouse.spec.students.size import file_bytes

_STEM, _HEAD = 16, 192
_STAGES = ((16, 1, 1), (24, 2, 6), (48, 2, 6), (96, 2, 6))
"""Channels at width 1, stride of the first block, expansion."""
_LARGE_IMAGE = 64
"""Pixels of the shorter side from which the stem halves the image too."""


class InvertedBlock(NamedTuple):
    """1×1 up, 3×3 depthwise, 1×1 down, with a shortcut where the shape stays."""

    before: int
    after: int
    stride: int
    expansion: int

    @property
    def inner(self) -> int:
        """Channels of the depthwise convolution."""
        return self.before * self.expansion


class Mobilenet(Contract):
    """A small MobileNetV2 (Sandler et al. 2018, arXiv:1801.04381): inverted residuals, the depthwise way to few MACs.

    Four stages of 16, 24, 48 and 96 channels times `width`, halving the image three times. The stem keeps the size of
    images below 64 pixels and halves larger ones.
    """

    tasks: ClassVar = ("image-classification",)

    name: Literal["mobilenet"]
    width: Annotated[float, Field(ge=0.1, le=16)] = 1.0
    """Multiplier of all channels; each is rounded to a multiple of 4."""
    depth: Annotated[int, Field(ge=1, le=16)] = 2
    """Blocks in each of the four stages."""

    @property
    def stem(self) -> int:
        """Channels of the first convolution."""
        return self._channels(_STEM)

    @property
    def head(self) -> int:
        """Channels that are averaged and classified."""
        return self._channels(_HEAD)

    @property
    def blocks(self) -> tuple[InvertedBlock, ...]:
        """All blocks, from input to output."""
        out, before = [], self.stem
        for channels, stride, expansion in _STAGES:
            after = self._channels(channels)
            for position in range(self.depth):
                out.append(InvertedBlock(before, after, 1 if position else stride, expansion))
                before = after
        return tuple(out)

    def stem_stride(self, facts: DataFacts) -> int:
        """1 below 64 pixels, 2 from there."""
        return 2 if min(facts.shape[1:]) >= _LARGE_IMAGE else 1

    def parameters(self, facts: DataFacts) -> int:
        """Convolutions carry no bias: the batch norm after each has one."""
        total = 9 * facts.shape[0] * self.stem + 2 * self.stem
        for block in self.blocks:
            if block.expansion > 1:
                total += block.before * block.inner + 2 * block.inner
            total += 9 * block.inner + 2 * block.inner + block.inner * block.after + 2 * block.after
        total += self.blocks[-1].after * self.head + 2 * self.head
        return total + (self.head + 1) * len(facts.classes)

    def macs(self, facts: DataFacts) -> int:
        """Multiply-adds of one image's forward pass, in convolutions and the linear layer."""
        height, width = _halved(facts.shape[1:], self.stem_stride(facts))
        total = 9 * facts.shape[0] * self.stem * height * width
        for block in self.blocks:
            if block.expansion > 1:
                total += block.before * block.inner * height * width
            height, width = _halved((height, width), block.stride)
            total += (9 * block.inner + block.inner * block.after) * height * width
        return total + self.blocks[-1].after * self.head * height * width + self.head * len(facts.classes)

    def file_bytes(self, facts: DataFacts) -> int:
        """Bytes of its model.safetensors, rounded up."""
        normed = [self.stem, self.head]
        for block in self.blocks:
            normed += [block.inner, block.after] if block.expansion == 1 else [block.inner, block.inner, block.after]
        numbers = self.parameters(facts) + 2 * sum(normed)
        return file_bytes(facts, numbers=numbers, tensors=5 * len(normed) + 2, norms=len(normed))

    def misfit(self, facts: DataFacts) -> str | None:
        """Three stages halve the image."""
        if len(facts.shape) != 3:
            return "a mobilenet needs images; for a table use mlp"
        if min(facts.shape[1:]) < 8:
            height, width = facts.shape[1:]
            return f"a mobilenet halves the image three times and needs at least 8×8 pixels; these are {height}×{width}"
        return None

    def _channels(self, usual: int) -> int:
        return max(4, int(usual * self.width / 4 + 0.5) * 4)


def _halved(size: tuple[int, ...], stride: int) -> tuple[int, int]:
    # A stride of 2 rounds up.
    return (size[0] + stride - 1) // stride, (size[1] + stride - 1) // stride
