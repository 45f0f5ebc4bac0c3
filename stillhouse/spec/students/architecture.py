"""Any architecture, and the closed catalogue of them."""

from typing import Annotated

from pydantic import Field

from stillhouse.spec.students.cnn import Cnn
from stillhouse.spec.students.mlp import Mlp
from stillhouse.spec.students.mobilenet import Mobilenet
from stillhouse.spec.students.resnet import Resnet

Architecture = Annotated[Mlp | Cnn | Resnet | Mobilenet, Field(discriminator="name")]
"""Any architecture, told apart by `name`."""

STUDENTS: dict[str, type[Mlp] | type[Cnn] | type[Resnet] | type[Mobilenet]] = {
    "mlp": Mlp,
    "cnn": Cnn,
    "resnet": Resnet,
    "mobilenet": Mobilenet,
}
"""The closed catalogue; the engine registers a builder for each of these names."""
