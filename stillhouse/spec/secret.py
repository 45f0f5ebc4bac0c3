"""Secrets of a project, such as a token of the Hugging Face Hub: stored once, named in specs, never shown again."""

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from stillhouse.spec import forms
from stillhouse.spec.base import Contract, View

MAX_SECRETS = 100
"""Of one project."""
MAX_SECRET_CHARACTERS = 4096
_NAME = r"^[a-z0-9][a-z0-9\-]{0,62}$"
STORE_IT = "store it with `stillhouse secrets set NAME` or PUT /v1/secrets/NAME"


def is_secret_name(text: str) -> bool:
    """True for a name a secret can have."""
    return re.fullmatch(_NAME, text) is not None


def _named(text: str) -> str:
    # Neither repeats what was given: it may be the secret itself. Tokens of the Hub have an underscore, names have not.
    if not is_secret_name(text):
        sentence = "A secret's name has 1 to 63 lower-case letters, digits and hyphens"
        raise PydanticCustomError("bad_secret_name", "{sentence}", {"sentence": f"{sentence}; to have one, {STORE_IT}"})
    return text


SecretName = Annotated[
    str, AfterValidator(_named), WithJsonSchema({"type": "string", "maxLength": 63, "pattern": _NAME})
]


class SecretRef(Contract):
    """A stored secret of the project, by its name: `{"secret": "hub"}`."""

    secret: SecretName

    @model_validator(mode="before")
    @classmethod
    def _never_itself(cls, given: Any) -> Any:
        if isinstance(given, str):
            sentence = f'A secret does not belong into a spec: {STORE_IT}, and write {{"secret": "NAME"}} here.'
            raise PydanticCustomError("literal_secret", "{sentence}", {"sentence": sentence})
        return given


class SecretRequest(Contract):
    """A secret to keep."""

    model_config = ConfigDict(hide_input_in_errors=True)

    value: Annotated[str, Field(min_length=1, max_length=MAX_SECRET_CHARACTERS, pattern=forms.PRINTABLE, repr=False)]
    """Printable ASCII without spaces: it is sent in a header. No answer ever has it again."""


class Secret(View):
    """A stored secret, without its value: nobody can read that again."""

    object: Literal["secret"] = "secret"
    name: str
    created_at: datetime
    updated_at: datetime
    """When its value was last set."""
    last_used_at: datetime | None
    """When a worker last opened it for a job."""


def secrets_named(value: Any, pointer: str = "") -> Iterator[tuple[str, str]]:
    """(JSON pointer, name) of each secret that a spec refers to."""
    if isinstance(value, SecretRef):
        yield f"{pointer}/secret", value.secret
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from secrets_named(getattr(value, name), f"{pointer}/{name}")
    elif isinstance(value, tuple | list):
        for position, item in enumerate(value):
            yield from secrets_named(item, f"{pointer}/{position}")
