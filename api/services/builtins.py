"""Data that comes with the service: stored once per project, when a job of it first asks."""

from threading import Lock

import structlog
from sqlalchemy.exc import IntegrityError

from api.parts import Parts
from api.problems import server_fault
from api.services.ingesting import Source, store
from api.services.workspace import working_folder
from models import datasets, trash
from models.dataset import DatasetRow
from stillhouse.spec.errors import InvalidData, TooLarge, UnsupportedMedia

log = structlog.get_logger()

# Many first jobs may arrive at once; without this each would read the data for nothing. Other processes of the
# service are kept apart by the unique index.
_one_at_a_time = Lock()


def stored(parts: Parts, project_id: str, builtin: str) -> DatasetRow:
    """The project's copy of a builtin dataset."""
    row = _found(parts, project_id, builtin)
    if row is not None:
        return row
    with _one_at_a_time:
        return _found(parts, project_id, builtin) or _store(parts, project_id, builtin)


def _store(parts: Parts, project_id: str, builtin: str) -> DatasetRow:
    try:
        with working_folder(parts.settings) as folder:
            return store(parts, project_id, Source(name=builtin, builtin=builtin), folder)
    except (InvalidData, TooLarge, UnsupportedMedia) as error:
        log.error("a builtin dataset could not be read", builtin=builtin, detail=error.detail)
        raise server_fault() from error  # the caller sent no file that could be at fault
    except IntegrityError:
        row = _found(parts, project_id, builtin)  # another process was first
        if row is None:
            raise
        return row


def _found(parts: Parts, project_id: str, builtin: str) -> DatasetRow | None:
    with parts.of(project_id).read() as session:
        row = datasets.by_builtin(session, project_id, builtin)
    if row is None or (row.deleted_at is None and row.missing_at is None):
        return row
    return _taken_up(parts, project_id, row.id)


def _taken_up(parts: Parts, project_id: str, dataset_id: str) -> DatasetRow | None:
    """A copy that lies in the trash comes out of it; one whose file is lost makes way for a new one."""
    with parts.of(project_id).write() as session:
        row = trash.locked(session, DatasetRow, project_id, dataset_id)
        if row is None:
            return None
        if row.missing_at is not None:
            row.builtin = None
            return None
        trash.take_out(session, row)
    return row
