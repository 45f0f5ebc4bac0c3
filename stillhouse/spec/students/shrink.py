"""A student that is its teacher made smaller."""

from typing import Annotated, Literal

from pydantic import Field

from stillhouse.spec.base import AUTO, Auto, Contract
from stillhouse.spec.students.architecture import Architecture
from stillhouse.spec.students.cnn import Cnn
from stillhouse.spec.students.mlp import Mlp
from stillhouse.spec.students.mobilenet import Mobilenet
from stillhouse.spec.students.resnet import Resnet

Factor = Annotated[float, Field(gt=0, le=1)]
_RESNETS = tuple(
    Resnet.model_validate({"name": "resnet", "depth": depth}) for depth in (8, 14, 18, 20, 26, 32, 34, 44, 56, 110)
)


class Shrink(Contract):
    """The teacher's own architecture, narrower and shallower, started from the teacher's layers where shapes allow."""

    name: Literal["shrink"]
    width: Factor = 0.5
    """Share of the units or channels of each layer to keep: the ones that matter most to the layers after them."""
    depth: Factor = 1.0
    """Share of the layers (mlp, cnn) or of the blocks of each stage (resnet, mobilenet) to keep."""
    architecture: Architecture | Auto = AUTO
    """auto: what the teacher's becomes; the resolved spec echoes it."""

    def of(self, teacher: Architecture) -> Architecture:
        """The concrete architecture. Raises ValueError, with the reason, for a teacher that has no such dials.

        It has no dropout: soft targets regularise, and a smaller network needs less (Hinton et al. 2015,
        arXiv:1503.02531 §3).
        """
        if isinstance(teacher, Mlp):
            return Mlp(name="mlp", hidden=self._leading(teacher.hidden))
        if isinstance(teacher, Cnn):
            return Cnn(name="cnn", channels=self._leading(teacher.channels))
        if isinstance(teacher, Resnet):
            return self._resnet(teacher)
        if isinstance(teacher, Mobilenet):
            width = max(0.1, round(teacher.width * self.width, 4))
            return Mobilenet(name="mobilenet", width=width, depth=_part(teacher.depth, self.depth))
        raise ValueError(
            f"the teacher is timm's {teacher.architecture}, which has no width and depth to turn: name a smaller "
            "architecture as the student"
        )

    def _leading(self, sizes: tuple[int, ...]) -> tuple[int, ...]:
        # Without shortcuts a layer only understands the one before it, so it is the last ones that go.
        return tuple(_part(size, self.width) for size in sizes[: _part(len(sizes), self.depth)])

    def _resnet(self, teacher: Resnet) -> Resnet:
        blocks = sum(teacher.blocks) * self.depth
        alike = [net for net in _RESNETS if net.projects == teacher.projects]
        nearest = min(alike, key=lambda net: (abs(sum(net.blocks) - blocks), net.depth))
        return nearest.model_copy(update={"width": _part(teacher.width, self.width)})


def _part(whole: int, share: float) -> int:
    return max(1, int(whole * share + 0.5))
