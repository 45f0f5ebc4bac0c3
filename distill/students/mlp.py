"""Multi-layer perceptron."""

from itertools import pairwise

from torch import nn

from distill.students.registry import register
from stillhouse.spec import DataFacts
from stillhouse.spec.students import Mlp


@register("mlp")
def mlp(architecture: Mlp, facts: DataFacts) -> nn.Module:
    """Flatten, Dropout, then Linear, ReLU, Dropout for each hidden layer, then Linear: [N, …] → logits [N, classes]."""
    sizes = (facts.inputs, *architecture.hidden)
    layers: list[nn.Module] = [nn.Flatten()]
    if architecture.input_dropout:
        layers.append(nn.Dropout(architecture.input_dropout))
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after), nn.ReLU()]
        if architecture.dropout:
            layers.append(nn.Dropout(architecture.dropout))
    return nn.Sequential(*layers, nn.Linear(sizes[-1], len(facts.classes)))
