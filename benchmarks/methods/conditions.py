"""What is compared: each method beside the labels, and beside `kd` and the labels."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from stillhouse.spec.losses import LOSSES, Feature, Relation, Response

CE: dict[str, Any] = {"kind": "ce"}
KD: dict[str, Any] = {"kind": "kd"}
ALONE = "student alone"
BESIDE = ("ce", "kd")
"""What a method stands beside: the labels, or kd and the labels."""

Beside = Literal["ce", "kd"]


@dataclass(frozen=True)
class Condition:
    """One way to train the student."""

    method: str
    family: str
    beside: Beside
    losses: tuple[dict[str, Any], ...]
    other: dict[str, Any] = field(default_factory=dict)
    """What else the spec says."""

    @property
    def name(self) -> str:
        """As in the log."""
        return f"{self.method} beside {self.beside}"


def conditions() -> Iterator[Condition]:
    """All of them, the two references first, then family by family."""
    yield Condition(ALONE, "", "ce", (CE,))
    yield Condition("kd", "response", "ce", (KD, CE))
    yield Condition("kd without labels", "response", "ce", (KD,))
    for family, union in (("response", Response), ("feature", Feature), ("relation", Relation)):
        for kind in (kind for kind, params in LOSSES.items() if params in get_args(union)):
            if kind not in ("ce", "kd"):
                yield from of_method(kind, family)
    yield Condition("born-again", "self", "ce", (KD, CE), {"teacher": {"previous": {"generations": 1}}})
    rising = {"kind": "kd", "weight": {"start": 0.0, "end": 1.0, "until": 0.3}}  # as docs/methods.md advises
    yield Condition("mean teacher", "self", "ce", (rising, {"kind": "ce", "weight": 1.0}), {"teacher": {"ema": {}}})


def of_method(kind: str, family: str, weight: float | None = None) -> Iterator[Condition]:
    """A loss beside the labels, and beside kd and the labels, at its usual weight unless another is given."""
    loss = {"kind": kind} if weight is None else {"kind": kind, "weight": weight}
    yield Condition(kind, family, "ce", (loss, CE))
    yield Condition(kind, family, "kd", (loss, KD, CE))
