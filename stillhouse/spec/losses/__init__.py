"""The losses a job can weigh, as a union told apart by `kind`. Their maths lives in the engine."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from stillhouse.spec.base import AUTO
from stillhouse.spec.losses.dials import LossParams, Softened, Temperature, Weight
from stillhouse.spec.losses.feature import AttentionTransfer, Fitnet, Nst, Review, Vid
from stillhouse.spec.losses.layers import Layered, LayerPair
from stillhouse.spec.losses.ramp import Ramp, TemperatureRamp, WeightRamp, at, ever
from stillhouse.spec.losses.relation import Cc, Crd, Pkt, Rkd, Similarity
from stillhouse.spec.losses.response import Ce, Dist, Dkd, Jsd, Kd, LogitCosine, LogitMse, ReverseKl

__all__ = [
    "LOSSES",
    "AttentionTransfer",
    "Cc",
    "Ce",
    "Crd",
    "Dist",
    "Dkd",
    "Fitnet",
    "Jsd",
    "Kd",
    "LayerPair",
    "Layered",
    "LogitCosine",
    "LogitMse",
    "Loss",
    "LossParams",
    "Nst",
    "Pkt",
    "Ramp",
    "ReverseKl",
    "Review",
    "Rkd",
    "Similarity",
    "Softened",
    "Temperature",
    "TemperatureRamp",
    "Vid",
    "Weight",
    "WeightRamp",
    "at",
    "ever",
    "losses_agree",
    "usual_weight",
]

Response = Kd | ReverseKl | Jsd | LogitMse | LogitCosine | Dkd | Dist | Ce
Feature = Fitnet | AttentionTransfer | Review | Vid | Nst
Relation = Rkd | Similarity | Pkt | Cc | Crd

Loss = Annotated[Response | Feature | Relation, Field(discriminator="kind")]
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
    "fitnet": Fitnet,
    "attention-transfer": AttentionTransfer,
    "review": Review,
    "vid": Vid,
    "nst": Nst,
    "rkd": Rkd,
    "similarity": Similarity,
    "pkt": Pkt,
    "cc": Cc,
    "crd": Crd,
}
"""The closed catalogue; the engine registers the maths of each of these kinds."""


def usual_weight(loss: LossParams, beside: tuple[LossParams, ...]) -> float:
    """What the weight `auto` of `loss` becomes among the losses `beside` it, itself included."""
    if len(beside) == 1:
        return 1.0
    if isinstance(loss, Ce) and any(isinstance(other, Kd | ReverseKl | Jsd) for other in beside):
        return 0.1
    return loss.usual_weight


def losses_agree(losses: Sequence[Loss], temperature: object) -> None:
    """Raise ValueError, naming the field, when losses of one sum contradict each other or the `temperature` beside
    them."""
    kinds = [loss.kind for loss in losses]
    if len(set(kinds)) < len(kinds):
        raise ValueError("losses: each kind may appear once; add the weights of equal ones")
    if not any(isinstance(loss.weight, str) or ever(loss.weight) for loss in losses):
        raise ValueError("losses: at least one weight must be above 0")
    softened = [loss for loss in losses if isinstance(loss, Softened)]
    if temperature != AUTO and not softened:
        raise ValueError("temperature: it belongs to losses that soften, such as kd, and `losses` has none")
    for loss in softened:
        if AUTO not in (loss.temperature, temperature) and loss.temperature != temperature:
            other = f"the {loss.kind} loss has another"
            raise ValueError(f"temperature: {other}; give one of them")
