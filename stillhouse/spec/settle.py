"""From the student a spec describes to networks that can be built: a part of `resolve`."""

from stillhouse.spec.errors import FieldError
from stillhouse.spec.facts import DataFacts
from stillhouse.spec.job import JobSpec
from stillhouse.spec.limits import Limits
from stillhouse.spec.students import Architecture, Shrink, Student, WithinBudget


def settle_student(
    spec: JobSpec, facts: DataFacts, limits: Limits, teacher: Architecture | None
) -> tuple[Student, list[FieldError]]:
    """The student with every `auto` filled in, and what is wrong with it.

    `teacher` is the architecture of a `model` teacher, None when it has none that is known.
    """
    student = spec.student
    if isinstance(student, Shrink):
        of = teacher if spec.teacher.train is None else spec.teacher.train.architecture
        return _settle_shrink(student, of, facts, limits)
    if isinstance(student, WithinBudget):
        return _settle_budget(student, facts, limits)
    return student, architecture_errors(student, "/student", facts, limits)


def architecture_errors(net: Architecture, pointer: str, facts: DataFacts, limits: Limits) -> list[FieldError]:
    """Why `net` cannot be trained on this data under these limits."""
    if reason := net.misfit(facts):
        detail = f"The {net.name} does not fit the dataset: {reason}."
        return [FieldError(pointer=pointer, code="architecture_misfit", detail=detail)]
    if (size := net.parameters(facts)) > limits.max_parameters:
        detail = f"The network has {size:,} parameters, the limit is {limits.max_parameters:,}: make it narrower."
        return [FieldError(pointer=pointer, code="too_many_parameters", detail=detail)]
    return []


def _settle_shrink(
    student: Shrink, teacher: Architecture | None, facts: DataFacts, limits: Limits
) -> tuple[Student, list[FieldError]]:
    if teacher is None:
        detail = "Nothing is known of the teacher's layers, so it cannot be shrunk: name an architecture."
        return student, [FieldError(pointer="/student", code="cannot_shrink", detail=detail)]
    try:
        small = student.of(teacher)
    except ValueError as error:
        return student, [FieldError(pointer="/student", code="cannot_shrink", detail=f"It cannot: {error}.")]
    if student.architecture not in ("auto", small):
        detail = "The teacher becomes another network than this one: leave the field out."
        return student, [FieldError(pointer="/student/architecture", code="contradiction", detail=detail)]
    settled = student.model_copy(update={"architecture": small})
    return settled, architecture_errors(small, "/student", facts, limits)


def _settle_budget(student: WithinBudget, facts: DataFacts, limits: Limits) -> tuple[Student, list[FieldError]]:
    wrong = []
    if not isinstance(student.candidates, str):
        for position, net in enumerate(student.candidates):
            if reason := net.misfit(facts):
                detail = f"The {net.name} does not fit the dataset: {reason}."
                pointer = f"/student/candidates/{position}"
                wrong.append(FieldError(pointer=pointer, code="architecture_misfit", detail=detail))
    if wrong:
        return student, wrong
    try:
        allowed = student.allowed(facts, limits.max_parameters)
    except ValueError as error:
        detail = f"Allow more: {error}."
        return student, [FieldError(pointer="/student/budget", code="nothing_fits", detail=detail)]
    return student.model_copy(update={"candidates": allowed}), []
