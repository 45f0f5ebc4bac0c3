"""What a spec can name: students and losses, each with the JSON schema of its fields."""

import inspect
from collections.abc import Mapping
from functools import cache
from typing import get_args

from pydantic import BaseModel

from stillhouse.spec import LOSSES, STUDENTS
from stillhouse.spec.facts import Task
from stillhouse.spec.views import Catalogue, CatalogueEntry


@cache
def students() -> Catalogue:
    """Architectures."""
    return _catalogue(STUDENTS)


@cache
def losses() -> Catalogue:
    """Losses. What says nothing about tasks is for all."""
    return _catalogue(LOSSES)


def _catalogue(classes: Mapping[str, type[BaseModel]]) -> Catalogue:
    return Catalogue(data=[_entry(name, cls) for name, cls in classes.items()])


def _entry(name: str, cls: type[BaseModel]) -> CatalogueEntry:
    return CatalogueEntry(
        name=name,
        summary=inspect.cleandoc(cls.__doc__ or ""),
        tasks=list(getattr(cls, "tasks", get_args(Task))),
        json_schema=cls.model_json_schema(),
    )
