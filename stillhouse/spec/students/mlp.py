"""The multi-layer perceptron."""

from itertools import pairwise
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from stillhouse.spec.base import Contract, DropoutRate, LaxTuple
from stillhouse.spec.facts import DataFacts
from stillhouse.spec.students.size import file_bytes

Width = Annotated[int, Field(ge=1, le=65_536)]


class Mlp(Contract):
    """Linear layers with ReLU between them; images are flattened."""

    tasks: ClassVar = ("image-classification", "tabular-classification")

    name: Literal["mlp"]
    hidden: Annotated[tuple[Width, ...], LaxTuple, Field(min_length=0, max_length=32)] = (64,)
    """Units of each hidden layer, from input to output. Empty: softmax regression."""
    dropout: DropoutRate = 0.0
    """Share of hidden units dropped while training."""
    input_dropout: DropoutRate = 0.0
    """Share of inputs dropped while training."""

    def parameters(self, facts: DataFacts) -> int:
        """Weights and biases of all layers."""
        sizes = (facts.inputs, *self.hidden, len(facts.classes))
        return sum(a * b + b for a, b in pairwise(sizes))

    def macs(self, facts: DataFacts) -> int:
        """Multiply-adds of one row's forward pass, in the linear layers."""
        sizes = (facts.inputs, *self.hidden, len(facts.classes))
        return sum(a * b for a, b in pairwise(sizes))

    def file_bytes(self, facts: DataFacts) -> int:
        """Bytes of its model.safetensors, rounded up."""
        return file_bytes(facts, numbers=self.parameters(facts), tensors=2 * (len(self.hidden) + 1))

    def misfit(self, facts: DataFacts) -> str | None:
        """Why the network cannot take this data, or None."""
        return None
