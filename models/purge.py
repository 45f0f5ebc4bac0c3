"""Removing for good what has been in the trash long enough.

Three steps, each of which may be done twice: `begin` marks the row (committed; nobody sees it any more), the caller
removes the files that `files_of` names, `finish` removes the rows. Whoever dies in between leaves a marked row, and
`begun` finds it again: so there may be a file without a row for a while, and never a row without its file.
"""

from typing import Any

from sqlalchemy import delete, exists, select, update
from sqlalchemy.orm import Session

from models import holds, stored_files, teacher_outputs, trash
from models.base import db_now
from models.dataset import DatasetRow
from models.idempotency import IdempotencyRow
from models.job import JobRow
from models.metric import MetricRow
from models.model import ModelRow
from models.tables import metadata
from models.teacher_output import TeacherOutputRow, TeacherOutputUseRow
from models.trash import AnyThing, Thing

_STAYS_WITHOUT_ITS_JOB = ("model", "teacher_output")


def due(session: Session, table: type[AnyThing], *, limit: int) -> list[tuple[str, str]]:
    """(project, id) of what has been in the trash long enough."""
    query = select(table.project_id, table.id).where(
        table.deleted_at.is_not(None), table.purge_at <= db_now(session), table.purging_at.is_(None)
    )
    return [(project_id, id) for project_id, id in session.execute(query.order_by(table.purge_at).limit(limit))]


def begin(session: Session, table: type[AnyThing], project_id: str, id: str) -> set[str] | None:
    """Mark a row. None, and nothing changed, when it was taken out of the trash, a job still reads it, or a hold is in
    force. Returns keys of files nobody needs from now on, beside those of `files_of`."""
    held = holds.in_force(session)
    row = trash.locked(session, table, project_id, id)
    now = db_now(session)
    if row is None or row.purge_at is None or row.purge_at > now or held:
        return None
    if trash.readers(session, row):
        return None
    keys = _settle_outputs(session, row)
    if keys is None:
        return None
    row.purging_at = now
    if isinstance(row, DatasetRow):
        row.builtin = None  # a job that names the builtin data gets a new copy
    if isinstance(row, JobRow):
        # Whoever sends the key again must not be told of a job that is not there.
        session.execute(delete(IdempotencyRow).where(IdempotencyRow.job_id == row.id))
    session.flush()
    return keys


def begun(session: Session, table: type[AnyThing], *, limit: int) -> list[str]:
    """Ids of marked rows whose files may still be there."""
    query = select(table.id).where(table.purging_at.is_not(None))
    if table is DatasetRow:
        names_it = exists().where(JobRow.dataset_id == DatasetRow.id)
        query = query.where((DatasetRow.storage_key != "") | ~names_it)
    return list(session.scalars(query.order_by(table.purging_at).limit(limit)))


def files_of(session: Session, table: type[Thing], id: str) -> set[str]:
    """Keys of the files of a marked row that no other row needs."""
    if table is JobRow:
        keys = stored_files.of_job(session, id)
    elif table is ModelRow:
        keys = set(session.scalars(select(ModelRow.weights_key).where(ModelRow.id == id)))
    else:
        keys = set(session.scalars(select(DatasetRow.storage_key).where(DatasetRow.id == id)))
    return keys - {""} - stored_files.needed(session, keys)


def finish(session: Session, table: type[Thing], id: str) -> None:
    """Remove a marked row whose files are gone, and all rows that are nothing without it."""
    if table is JobRow:
        _finish_job(session, id)
    elif table is DatasetRow and session.execute(select(exists().where(JobRow.dataset_id == id))).scalar_one():
        # Jobs that ran on it stay, and name it: their reports are worth something without it.
        empty = {"storage_key": "", "name": "deleted", "facts": {}, "report": {}}
        session.execute(update(DatasetRow).where(DatasetRow.id == id).values(**empty))
    else:
        session.execute(delete(table).where(table.id == id, table.purging_at.is_not(None)))


def thin(session: Session, job_id: str) -> bool:
    """Remove one series of a marked job. False when there is none left. A job may have millions of points, and a
    statement must end within seconds."""
    series = select(MetricRow.attempt, MetricRow.name).join(JobRow, JobRow.id == MetricRow.job_id)
    series = series.where(MetricRow.job_id == job_id, JobRow.purging_at.is_not(None)).limit(1)
    if (found := session.execute(series).one_or_none()) is None:
        return False
    mine = [MetricRow.job_id == job_id, MetricRow.attempt == found.attempt, MetricRow.name == found.name]
    session.execute(delete(MetricRow).where(*mine))
    return True


def _finish_job(session: Session, job_id: str) -> None:
    marked = select(JobRow.id).where(JobRow.id == job_id, JobRow.purging_at.is_not(None))
    if session.scalars(marked.with_for_update()).first() is None:
        return
    session.execute(update(ModelRow).where(ModelRow.job_id == job_id).values(job_id=None, former_job_id=job_id))
    for table in reversed(metadata.sorted_tables):
        if table.name in _STAYS_WITHOUT_ITS_JOB:
            continue
        for key in table.foreign_keys:
            if key.column.table.name == "job":
                session.execute(delete(table).where(key.parent == job_id))
    session.execute(delete(JobRow).where(JobRow.id == job_id))


def _settle_outputs(session: Session, row: Thing) -> set[str] | None:
    """Kept outputs go with their dataset, and with the last job that made or read them: their rows now, and their
    files are what is returned. None when a running job reads them."""
    if isinstance(row, ModelRow):
        return set()
    mine = TeacherOutputRow.dataset_id if isinstance(row, DatasetRow) else TeacherOutputRow.job_id
    outputs = session.scalars(select(TeacherOutputRow).where(mine == row.id).with_for_update()).all()
    heirs = [None if isinstance(row, DatasetRow) else _other_user(session, output, row.id) for output in outputs]
    if any(
        heir is None and teacher_outputs.in_use(session, output) for output, heir in zip(outputs, heirs, strict=True)
    ):
        return None
    keys: set[str] = set()
    for output, heir in zip(outputs, heirs, strict=True):
        if heir is not None:
            output.job_id = heir
            continue
        keys |= {output.storage_key} if output.storage_key is not None else set()
        teacher_outputs.remove(session, output)
    session.flush()
    return keys


def _other_user(session: Session, output: TeacherOutputRow, job_id: str) -> Any:
    query = (
        select(TeacherOutputUseRow.job_id)
        .join(JobRow, JobRow.id == TeacherOutputUseRow.job_id)
        .where(TeacherOutputUseRow.output_id == output.id, JobRow.id != job_id, JobRow.purging_at.is_(None))
    )
    return session.scalars(query.order_by(TeacherOutputUseRow.job_id).limit(1)).one_or_none()
