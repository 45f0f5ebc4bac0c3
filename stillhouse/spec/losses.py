"""The losses a job can weigh, as a union told apart by `kind`. Their maths lives in the engine."""

from typing import Annotated, Literal

from pydantic import Field

from stillhouse.spec.base import AUTO, Auto, Contract

Temperature = Annotated[float, Field(gt=0, le=100)]
Weight = Annotated[float, Field(ge=0, le=1e6)]


class Kd(Contract):
    """Soft targets (Hinton, Vinyals, Dean 2015, arXiv:1503.02531): T² · KL(teacher/T ‖ student/T), mean over rows."""

    kind: Literal["kd"]
    temperature: Temperature | Auto = AUTO
    """T > 0. Higher softens both distributions. auto: 4, or the spec's own `temperature`."""
    weight: Weight | Auto = AUTO
    """auto: 0.9, the usual share of the soft targets (as in the CRD benchmark, arXiv:1910.10699)."""


class Ce(Contract):
    """Cross-entropy with the true labels at temperature 1, mean over rows."""

    kind: Literal["ce"]
    weight: Weight | Auto = AUTO
    """auto: 0.1 beside another loss, 1 alone."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """ε: the target becomes (1-ε)·one-hot + ε/classes (Szegedy et al. 2015, arXiv:1512.00567)."""


Loss = Annotated[Kd | Ce, Field(discriminator="kind")]
"""Any loss, told apart by `kind`."""

LOSSES: dict[str, type[Kd] | type[Ce]] = {"kd": Kd, "ce": Ce}
"""The closed catalogue; the engine registers the maths of each of these kinds."""
