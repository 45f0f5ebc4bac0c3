"""From a file to a teacher: read and tried by a process of its own, kept in the storage, then recorded. Or nothing."""

from pathlib import Path

from sqlalchemy.orm import Session

from api.parts import Parts
from api.services.workspace import keep
from core.intake_child import intake
from models import results
from models.model import ModelRow
from stillhouse.spec.base import Name
from stillhouse.spec.errors import FieldError, InvalidData, StillhouseError, TooLarge, UnsupportedMedia
from stillhouse.spec.ids import new_id
from stillhouse.spec.teachers import IntakeRequest, TeacherQuery

SMALLER = "Upload a smaller network, or its weights in half precision."
"""How an upload that is too much gets smaller."""


class ModelQuery(TeacherQuery):
    """What the teacher is called, and how to read its file."""

    name: Name
    """What you call the teacher; need not be unique."""


def take(parts: Parts, project_id: str, query: ModelQuery, path: Path) -> ModelRow:
    """Read the uploaded file at `path`, using its folder for what lies in between, and record the teacher.

    Raises what `core.intake_child.intake` raises, and Unavailable; nothing is left then.
    """
    model_id = new_id("mdl")
    output = path.with_name("checked")
    limits = parts.settings.limits
    request = IntakeRequest(source=str(path), output=str(output), options=query.options(), limits=limits)
    try:
        checked = intake(request)
    except (InvalidData, TooLarge, UnsupportedMedia) as error:
        raise _at_the_query(error) from None
    key = f"projects/{project_id}/models/{model_id}"

    def add(session: Session) -> ModelRow:
        return results.add_teacher(session, project_id, id=model_id, name=query.name, storage_key=key, checked=checked)

    return keep(
        parts, project_id, key, output, add=add, find=lambda session: results.model(session, project_id, model_id)
    )


def _at_the_query(error: StillhouseError) -> StillhouseError:
    """The same error, its options named as the query names them: /options/preprocessing/size is ?size."""
    errors = [
        FieldError(pointer=f"?{e.pointer.rpartition('/')[2]}", code=e.code, detail=e.detail)
        if e.pointer.startswith("/options/")
        else e
        for e in error.errors
    ]
    return type(error)(error.detail, hint=error.hint, errors=errors)
