"""The losses a job can weigh, as a union told apart by `kind`. Their maths lives in the engine."""

from typing import Annotated

from pydantic import Field

from stillhouse.spec.losses.dials import LossParams, Softened, Temperature, Weight
from stillhouse.spec.losses.response import Ce, Dist, Dkd, Jsd, Kd, LogitCosine, LogitMse, ReverseKl

__all__ = [
    "LOSSES",
    "Ce",
    "Dist",
    "Dkd",
    "Jsd",
    "Kd",
    "LogitCosine",
    "LogitMse",
    "Loss",
    "LossParams",
    "ReverseKl",
    "Softened",
    "Temperature",
    "Weight",
    "usual_weight",
]

Loss = Annotated[Kd | ReverseKl | Jsd | LogitMse | LogitCosine | Dkd | Dist | Ce, Field(discriminator="kind")]
"""Any loss, told apart by `kind`."""

LOSSES: dict[str, type[LossParams]] = {
    "kd": Kd,
    "reverse-kl": ReverseKl,
    "jsd": Jsd,
    "logit-mse": LogitMse,
    "logit-cosine": LogitCosine,
    "dkd": Dkd,
    "dist": Dist,
    "ce": Ce,
}
"""The closed catalogue; the engine registers the maths of each of these kinds."""


def usual_weight(loss: LossParams, beside: tuple[LossParams, ...]) -> float:
    """What the weight `auto` of `loss` becomes among the losses `beside` it, itself included."""
    if len(beside) == 1:
        return 1.0
    if isinstance(loss, Ce) and any(isinstance(other, Kd | ReverseKl | Jsd) for other in beside):
        return 0.1
    return loss.usual_weight
