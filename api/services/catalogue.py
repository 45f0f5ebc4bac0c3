"""What a spec can name: students and losses, each with the JSON schema of its fields, and what students cost."""

import inspect
import re
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Self, get_args

from pydantic import BaseModel, Field, field_validator, model_validator

from api.parts import Parts
from api.services import datasets
from stillhouse.spec import LOSSES, STUDENTS
from stillhouse.spec.base import Contract
from stillhouse.spec.facts import DataFacts, Task
from stillhouse.spec.students.ladder import examples
from stillhouse.spec.views import Catalogue, CatalogueEntry, StudentSize


class StudentsQuery(Contract, strict=False):
    """For which data sizes are worked out: a dataset, or a shape and a number of classes. Neither: for none."""

    dataset: str | None = None
    """Id of a dataset."""
    shape: Annotated[str | None, Field(max_length=40)] = None
    """One row: channels,height,width of images, or the number of inputs of a table."""
    classes: Annotated[int | None, Field(ge=2, le=100_000)] = None

    @field_validator("shape")
    @classmethod
    def _one_or_three_numbers(cls, given: str | None) -> str | None:
        if given is not None and re.fullmatch(r"[1-9]\d{0,4},[1-9]\d{0,4},[1-9]\d{0,4}|[1-9]\d{0,6}", given) is None:
            raise ValueError("a shape is written 3,32,32 for images and 30 for a table")
        return given

    @model_validator(mode="after")
    def _belong_together(self) -> Self:
        if (self.shape is None) != (self.classes is None):
            raise ValueError("classes: shape and classes go together")
        if self.dataset is not None and self.shape is not None:
            raise ValueError("shape: give a dataset or a shape, not both")
        return self


def students(parts: Parts, project_id: str, query: StudentsQuery) -> Catalogue:
    """Architectures, with sizes when the query names data. Raises NotFound."""
    facts = _facts(parts, project_id, query)
    plain = _students()
    return plain if facts is None else Catalogue(data=[_sized(entry, facts) for entry in plain.data])


@cache
def losses() -> Catalogue:
    """Losses. What says nothing about tasks is for all."""
    return _catalogue(LOSSES)


@cache
def _students() -> Catalogue:
    return _catalogue(STUDENTS)


def _facts(parts: Parts, project_id: str, query: StudentsQuery) -> DataFacts | None:
    if query.dataset is not None:
        return DataFacts.model_validate(datasets.find(parts, project_id, query.dataset).facts)
    if query.shape is None or query.classes is None:
        return None
    shape = tuple(map(int, query.shape.split(",")))
    return DataFacts(
        task="image-classification" if len(shape) == 3 else "tabular-classification",
        shape=shape,
        dtype="float32",
        classes=tuple(map(str, range(query.classes))),
        rows={},
    )


def _sized(entry: CatalogueEntry, facts: DataFacts) -> CatalogueEntry:
    reasons = {net: net.misfit(facts) for net in examples() if net.name == entry.name}
    sizes = [
        StudentSize(
            student=net,
            parameters=net.parameters(facts),
            macs=net.macs(facts),
            size_bytes=net.file_bytes(facts),
        )
        for net, reason in reasons.items()
        if reason is None
    ]
    misfit = None if sizes else next(iter(reasons.values()), None)
    return entry.model_copy(update={"sizes": sizes, "misfit": misfit})


def _catalogue(classes: Mapping[str, type[BaseModel]]) -> Catalogue:
    return Catalogue(data=[_entry(name, cls) for name, cls in classes.items()])


def _entry(name: str, cls: type[BaseModel]) -> CatalogueEntry:
    return CatalogueEntry(
        name=name,
        summary=inspect.cleandoc(cls.__doc__ or ""),
        tasks=list(getattr(cls, "tasks", get_args(Task))),
        json_schema=cls.model_json_schema(),
    )
