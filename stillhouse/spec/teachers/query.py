"""The options of an upload as the query of `POST /v1/models` writes them: flat, and as text."""

from typing import Any

from pydantic import ConfigDict, ValidationInfo, field_validator

from stillhouse.spec.teachers.options import StatedNetwork, TeacherOptions
from stillhouse.spec.teachers.preprocessing import StatedPreprocessing


class TeacherQuery(StatedNetwork, StatedPreprocessing):
    """How to read the file of a teacher. A list of numbers is written as `mean=0.5,0.4,0.3` or by repeating `mean`;
    `size=224` means a square."""

    # Query parameters arrive as text, so "0.5" must be taken for a number here; the bounds stay.
    model_config = ConfigDict(strict=False)

    @field_validator("shape", "size", "mean", "std", mode="before")
    @classmethod
    def _written_in_one(cls, value: Any, field: ValidationInfo) -> Any:
        if isinstance(value, list | tuple) and len(value) == 1 and isinstance(value[0], str):
            value = value[0].split(",")
        if field.field_name == "size" and isinstance(value, list | tuple) and len(value) == 1:
            return [value[0], value[0]]
        return value

    def options(self) -> TeacherOptions:
        """The same, as the reader takes it."""
        said = self.model_dump(include=set(StatedNetwork.model_fields))
        preprocessing = self.model_dump(include=set(StatedPreprocessing.model_fields))
        return TeacherOptions.model_validate({**said, "preprocessing": preprocessing})
