"""What the process that reads an uploaded teacher is told, and what it answers."""

from typing import Self

from pydantic import Field, model_validator

from stillhouse.spec.base import Contract, View
from stillhouse.spec.limits import Limits
from stillhouse.spec.teachers.config import StoredConfig
from stillhouse.spec.teachers.options import TeacherFormat, TeacherOptions
from stillhouse.spec.upload import Refusal


class IntakeRequest(Contract):
    """One file to read. Made by the service, never by a caller."""

    source: str
    """Path of the uploaded bytes."""
    output: str
    """Path of the file to write: the weights, the graph or the program, checked. It appears whole or not at all."""
    options: TeacherOptions = TeacherOptions()
    limits: Limits = Limits()

    @property
    def partial(self) -> str:
        """Path the file has until it is complete."""
        return self.output + ".partial"


class CheckedTeacher(View):
    """A teacher was written: its file is at `IntakeRequest.output`, everything else is here."""

    format: TeacherFormat
    """What the bytes turned out to be."""
    config: StoredConfig
    bytes: int
    """Of the written file."""
    sha256: str
    notes: list[str] = Field(default_factory=list)
    """What a careful person would want to know: where its preprocessing comes from, what was left out."""


class IntakeAnswer(View):
    """The one line the reading process prints: `ok` or `error`."""

    ok: CheckedTeacher | None = None
    error: Refusal | None = None

    @model_validator(mode="after")
    def _one_answer(self) -> Self:
        if (self.ok is None) == (self.error is None):
            raise ValueError("an answer is either ok or error")
        return self
