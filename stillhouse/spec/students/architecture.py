"""Any architecture, and the closed catalogue of them."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from stillhouse.spec.students.cnn import Cnn
from stillhouse.spec.students.mlp import Mlp
from stillhouse.spec.students.mobilenet import Mobilenet
from stillhouse.spec.students.resnet import Resnet
from stillhouse.spec.students.timm import Timm


def spelled_out(given: Any) -> Any:
    """`{name: timm/resnet18}` is short for `{name: timm, architecture: resnet18}`."""
    if isinstance(given, dict) and isinstance(name := given.get("name"), str) and "architecture" not in given:
        family, slash, architecture = name.partition("/")
        if family == "timm" and slash:
            return {**given, "name": family, "architecture": architecture}
    return given


Architecture = Annotated[
    Annotated[Mlp | Cnn | Resnet | Mobilenet | Timm, Field(discriminator="name")], BeforeValidator(spelled_out)
]
"""Any architecture, told apart by `name`."""

STUDENTS: dict[str, type[Mlp] | type[Cnn] | type[Resnet] | type[Mobilenet] | type[Timm]] = {
    "mlp": Mlp,
    "cnn": Cnn,
    "resnet": Resnet,
    "mobilenet": Mobilenet,
    "timm": Timm,
}
"""The closed catalogue; the engine registers a builder for each of these names."""
