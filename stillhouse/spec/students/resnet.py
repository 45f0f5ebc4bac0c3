"""The residual network for small images."""

from itertools import pairwise
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from stillhouse.spec.base import Contract
from stillhouse.spec.facts import DataFacts
from stillhouse.spec.students.size import file_bytes

_FOUR_STAGES = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}


class Resnet(Contract):
    """Residual networks of He et al. 2015 (arXiv:1512.03385) that begin at full resolution, as small images need.

    Depths of 6n+2 are those for CIFAR (§4.2): three stages, parameter-free shortcuts. 18 and 34 are those for ImageNet
    (table 1) with the stem for small images, 3×3 and stride 1 without a pool: four stages, projections where the shape
    changes; `width: 64` is the published one.
    """

    tasks: ClassVar = ("image-classification",)

    name: Literal["resnet"]
    depth: Literal[8, 14, 18, 20, 26, 32, 34, 44, 56, 110] = 20
    """Layers."""
    width: Annotated[int, Field(ge=1, le=1024)] = 16
    """Channels of the first stage; each later one has twice as many as the one before."""

    @property
    def blocks(self) -> tuple[int, ...]:
        """Blocks of two convolutions in each stage."""
        return _FOUR_STAGES.get(self.depth, ((self.depth - 2) // 6,) * 3)

    @property
    def projects(self) -> bool:
        """True when a shortcut between two stages is a 1×1 convolution with batch norm (option B of the paper)."""
        return self.depth in _FOUR_STAGES

    def parameters(self, facts: DataFacts) -> int:
        """Stem, stages of two-convolution blocks, linear."""
        total = 9 * facts.shape[0] * self.width + 2 * self.width
        for before, after, blocks in self._stages():
            total += 9 * before * after + 9 * after * after * (2 * blocks - 1) + 4 * after * blocks
            if self.projects and after > before:
                total += before * after + 2 * after
        return total + (self._last + 1) * len(facts.classes)

    def macs(self, facts: DataFacts) -> int:
        """Multiply-adds of one image's forward pass, in convolutions and the linear layer."""
        height, width = facts.shape[1:]
        total = 9 * facts.shape[0] * self.width * height * width
        for before, after, blocks in self._stages():
            if after > before:  # a stride of 2 rounds up
                height, width = (height + 1) // 2, (width + 1) // 2
            weights = 9 * before * after + 9 * after * after * (2 * blocks - 1)
            weights += before * after if self.projects and after > before else 0
            total += weights * height * width
        return total + self._last * len(facts.classes)

    def file_bytes(self, facts: DataFacts) -> int:
        """Bytes of its model.safetensors, rounded up."""
        normed = [self.width]
        for before, after, blocks in self._stages():
            normed += [after] * (2 * blocks + (self.projects and after > before))
        numbers = self.parameters(facts) + 2 * sum(normed)
        return file_bytes(facts, numbers=numbers, tensors=5 * len(normed) + 2, norms=len(normed))

    def misfit(self, facts: DataFacts) -> str | None:
        """All stages but the first halve the image."""
        if len(facts.shape) != 3:
            return "a resnet needs images; for a table use mlp"
        halvings = len(self.blocks) - 1
        if min(facts.shape[1:]) < 2**halvings:
            height, width = facts.shape[1:]
            return (
                f"a resnet-{self.depth} halves the image {halvings} times and needs at least "
                f"{2**halvings}×{2**halvings} pixels; these are {height}×{width}"
            )
        return None

    @property
    def _last(self) -> int:
        return self.width << (len(self.blocks) - 1)

    def _stages(self) -> list[tuple[int, int, int]]:
        """Channels before and within each stage, and its blocks."""
        widths = [self.width, *(self.width * 2**stage for stage in range(len(self.blocks)))]
        return [(*widths, blocks) for widths, blocks in zip(pairwise(widths), self.blocks, strict=True)]
