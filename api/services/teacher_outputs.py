"""What a caller may see and do of the teacher outputs that are kept for the project."""

from api.parts import Parts
from api.services.missing import missing
from api.services.paging import PageQuery, page_of, start_of
from api.views import teacher_outputs_view
from models import teacher_outputs
from stillhouse.spec.errors import Conflict
from stillhouse.spec.ids import is_id
from stillhouse.spec.views import KeptOutputs, Page


def page(parts: Parts, project_id: str, query: PageQuery) -> Page[KeptOutputs]:
    """A page of kept outputs."""
    before = start_of(parts, project_id, "teacher-outputs", query)
    with parts.of(project_id).read() as session:
        rows = teacher_outputs.page(session, project_id, before=before, limit=query.limit)
    return page_of(parts, project_id, "teacher-outputs", query, rows, teacher_outputs_view)


def delete(parts: Parts, project_id: str, output_id: str) -> None:
    """Drop kept outputs and their file. Raises NotFound; Conflict while a running job reads them."""
    if not is_id("out", output_id):
        raise missing("out", output_id)
    with parts.of(project_id).write() as session:
        row = teacher_outputs.get(session, project_id, output_id)
        if row is None:
            raise missing("out", output_id)
        stored = row.storage_key
        if not teacher_outputs.remove(session, row):
            raise Conflict("A running job reads these outputs.", hint="Delete them once it is over, or cancel it.")
    # The record first: a file that nobody refers to does less harm than a record without its file.
    if stored is not None:
        parts.storage.delete(stored)
