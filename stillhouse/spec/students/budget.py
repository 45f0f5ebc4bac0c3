"""A student chosen by what it may cost."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from stillhouse.spec.base import AUTO, Auto, Contract, LaxTuple
from stillhouse.spec.facts import DataFacts
from stillhouse.spec.students.architecture import Architecture
from stillhouse.spec.students.ladder import fitting, largest_first


class Budget(Contract):
    """What a student may cost at most. Only what is given counts."""

    size_mb: Annotated[float, Field(gt=0)] | None = None
    """Size of model.safetensors, in 10⁶ bytes."""
    latency_ms: Annotated[float, Field(gt=0)] | None = None
    """Median of one row through ONNX Runtime on the worker's CPU, measured there before training."""
    parameters: Annotated[int, Field(ge=1)] | None = None
    macs: Annotated[int, Field(ge=1)] | None = None
    """Multiply-adds of one row's forward pass."""

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.model_dump(exclude_none=True):
            raise ValueError("give at least one of size_mb, latency_ms, parameters, macs")
        return self

    def excess(self, net: Architecture, facts: DataFacts) -> str | None:
        """What `net` has too much of, with the figure; None when it fits. Latency is for the worker to measure."""
        if self.parameters is not None and (count := net.parameters(facts)) > self.parameters:
            return f"has {count:,} parameters and {self.parameters:,} are allowed"
        if self.macs is not None and (macs := net.macs(facts)) > self.macs:
            return f"takes {macs:,} multiply-adds and {self.macs:,} are allowed"
        if self.size_mb is not None and (size := net.file_bytes(facts) / 1e6) > self.size_mb:
            return f"has a file of {size:.3g} MB and {self.size_mb:g} MB are allowed"
        return None


class WithinBudget(Contract):
    """The largest of some candidates that a budget allows."""

    budget: Budget
    candidates: Annotated[tuple[Architecture, ...], LaxTuple, Field(min_length=1, max_length=100)] | Auto = AUTO
    """auto: the steps of the catalogue that fit the data. The resolved spec echoes those that the budget allows, the
    largest first: one, or with `latency_ms` all that the worker may have to measure."""

    def allowed(self, facts: DataFacts, most_parameters: int) -> tuple[Architecture, ...]:
        """The candidates within the budget but for latency, largest first; without a latency only the largest.

        Raises ValueError, naming the smallest candidate and its figure, when there is none.
        """
        candidates = fitting(facts) if isinstance(self.candidates, str) else self.candidates
        ordered = largest_first(candidates, facts)
        within = tuple(
            net
            for net in ordered
            if net.parameters(facts) <= most_parameters and self.budget.excess(net, facts) is None
        )
        if not within:
            smallest = ordered[-1]
            reason = self.budget.excess(smallest, facts)
            reason = reason or f"has {smallest.parameters(facts):,} parameters, the limit is {most_parameters:,}"
            raise ValueError(f"none of {len(ordered)} candidates fits: the smallest, {in_words(smallest)}, {reason}")
        return within if self.budget.latency_ms is not None else within[:1]


def in_words(net: Architecture) -> str:
    """`mlp hidden=[32]`: the dials that are at work."""
    dials = net.model_dump(mode="json", exclude={"name"})
    return " ".join([net.name, *(f"{dial}={value}" for dial, value in dials.items() if value or value == [])])
