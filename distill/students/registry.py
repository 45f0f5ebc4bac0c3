"""The families a network can be built from, by the name the spec gives them."""

from collections.abc import Callable
from typing import Any

from torch import nn

from distill.registry import Registry
from stillhouse.spec import DataFacts

# A builder takes its own architecture model (Mlp, Cnn, …) and the facts of the data.
STUDENTS: Registry[Callable[[Any, DataFacts], nn.Module]] = Registry("student")
register = STUDENTS.register
