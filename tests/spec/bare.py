"""The smallest spec, and what is said of one that is wrong in itself."""

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from stillhouse.spec import JobSpec
from stillhouse.spec.problems import field_errors

BARE: dict[str, Any] = {
    "teacher": {"train": {"architecture": {"name": "mlp", "hidden": [32]}}},
    "dataset": {"builtin": "digits"},
    "student": {"name": "mlp", "hidden": [8]},
}


def told(given: Any, model: type[BaseModel] = JobSpec) -> dict[str, str]:
    """Field → sentence of what `model` does not take."""
    with pytest.raises(ValidationError) as caught:
        model.model_validate(given)
    return {error.pointer: error.detail for error in field_errors(caught.value, given, model)}


def refused(**changes: Any) -> dict[str, str]:
    """The same of the smallest spec with `changes`."""
    return told(BARE | changes)
