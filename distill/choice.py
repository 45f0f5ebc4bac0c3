"""Which of a budget's candidates becomes the student: the largest that is fast enough here."""

from collections.abc import Callable

import torch
from torch import nn

from distill.data import Dataset, Statistics
from distill.export.onnx import to_onnx
from distill.export.runtime import Session, latency
from distill.model import trained_model
from distill.reporter import Reporter
from stillhouse.spec.errors import JobFailure
from stillhouse.spec.report import Candidate, ChosenStudent
from stillhouse.spec.students import Architecture, WithinBudget, architecture_of, in_words
from stillhouse.spec.students.student import Student


def choose(
    student: Student,
    data: Dataset,
    statistics: Statistics,
    fresh: Callable[[Architecture], nn.Module],
    reporter: Reporter,
) -> tuple[Architecture, ChosenStudent | None]:
    """The architecture to train, and how it was found when the spec gives a budget.

    With a latency, each candidate of the resolved spec, from the largest down, is built by `fresh`, exported to ONNX
    with its first weights and timed at batch 1, until one is within the budget: weights do not change the time.
    Another run may measure otherwise and choose a neighbour; the report says what was measured. Raises JobFailure
    `budget_unmet`.
    """
    if not isinstance(student, WithinBudget):
        return architecture_of(student), None
    if student.budget.latency_ms is None:
        chosen = architecture_of(student)
        return chosen, ChosenStudent(student=chosen, candidates=[_candidate(chosen, data, None, fits=True)])
    return _measured(student, student.budget.latency_ms, data, statistics, fresh, reporter)


def _measured(
    student: WithinBudget,
    most_ms: float,
    data: Dataset,
    statistics: Statistics,
    fresh: Callable[[Architecture], nn.Module],
    reporter: Reporter,
) -> tuple[Architecture, ChosenStudent]:
    found: list[Candidate] = []
    for net in student.candidates:
        assert not isinstance(net, str)  # a resolved spec
        milliseconds = _milliseconds(net, data, statistics, fresh)
        found.append(_candidate(net, data, milliseconds, fits=milliseconds is not None and milliseconds <= most_ms))
        if found[-1].fits:
            reporter.say(
                f"The student is {in_words(net)}: {milliseconds:.3g} ms a row, {most_ms:g} ms are allowed; "
                f"{len(found) - 1} larger candidates were slower."
            )
            return net, ChosenStudent(student=net, candidates=found)
    smallest = found[-1]
    figure = "could not be timed" if smallest.latency_ms is None else f"takes {smallest.latency_ms:.3g} ms a row"
    raise JobFailure(
        "budget_unmet",
        f"None of {len(found)} candidates is fast enough: the smallest, {in_words(smallest.student)}, {figure}, and "
        f"{most_ms:g} ms are allowed.",
        hint="Allow more in student.budget.latency_ms, or name smaller student.candidates.",
    )


def _milliseconds(
    net: Architecture, data: Dataset, statistics: Statistics, fresh: Callable[[Architecture], nn.Module]
) -> float | None:
    """Median time of one row on the CPU; None when the network cannot be exported."""
    model = trained_model("student", fresh(net).cpu().eval(), net, data.facts, statistics)
    try:
        session = Session(to_onnx(model.net, model.config))
    except JobFailure:
        return None
    row = torch.zeros(1, *data.facts.shape).numpy()
    return latency(session, row, batch=1).median_ms


def _candidate(net: Architecture, data: Dataset, milliseconds: float | None, *, fits: bool) -> Candidate:
    return Candidate(
        student=net,
        parameters=net.parameters(data.facts),
        macs=net.macs(data.facts),
        size_bytes=net.file_bytes(data.facts),
        latency_ms=milliseconds,
        fits=fits,
    )
