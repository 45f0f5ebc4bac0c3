"""The residual network for small images."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from stillhouse.spec.base import Contract
from stillhouse.spec.facts import DataFacts
from stillhouse.spec.students.size import file_bytes


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

    def file_bytes(self, facts: DataFacts) -> int:
        """Bytes of its model.safetensors, rounded up."""
        n, w = (self.depth - 2) // 6, self.width
        norms = 6 * n + 1
        statistics = 2 * (w + 2 * n * (w + 2 * w + 4 * w))
        return file_bytes(facts, numbers=self.parameters(facts) + statistics, tensors=5 * norms + 2, norms=norms)

    def misfit(self, facts: DataFacts) -> str | None:
        """Two stages halve the image."""
        if len(facts.shape) != 3:
            return "a resnet needs images; for a table use mlp"
        if min(facts.shape[1:]) < 4:
            height, width = facts.shape[1:]
            return f"a resnet halves the image twice and needs at least 4×4 pixels; these are {height}×{width}"
        return None
