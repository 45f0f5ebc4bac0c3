"""Networks: one family per file, filed under the names of `stillhouse.spec.STUDENTS`."""

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

# Imported for their registration.
from distill.students import cnn, from_timm, mlp, mobilenet, resnet  # noqa: F401
from distill.students.layout import channels_last
from distill.students.normalize import Normalize
from distill.students.registry import STUDENTS
from stillhouse.spec import DataFacts
from stillhouse.spec.students import Architecture

__all__ = ["STUDENTS", "build", "channels_last"]


def build(architecture: Architecture, facts: DataFacts, mean: Sequence[float], std: Sequence[float]) -> nn.Module:
    """A freshly initialised network that takes raw float32 rows [N, *facts.shape] and gives logits [N, classes].

    `mean` and `std` are per channel of images, per input of tables. Weights are drawn from torch's global stream.
    """
    body = STUDENTS[architecture.name](architecture, facts)
    normalize = Normalize(mean, std, image=len(facts.shape) == 3)
    return channels_last(nn.Sequential(OrderedDict(normalize=normalize, network=body)))
