"""Deleting jobs, datasets and models, and having them back. What is deleted lies in the trash for some days."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.orm import Session

from api.parts import Parts
from api.services.missing import missing
from models import trash
from models.dataset import DatasetRow
from models.job import JobRow
from models.model import ModelRow
from models.trash import AnyThing, Thing
from stillhouse.spec.errors import Conflict, NotFound
from stillhouse.spec.ids import ID_PATTERN


def delete_job(parts: Parts, project_id: str, job_id: str) -> JobRow:
    """Into the trash. Raises NotFound; Conflict while the job is not over."""
    with _found(parts, JobRow, project_id, job_id, missing("job", job_id)) as (session, row):
        if trash.readers(session, row):
            hint = f"POST /v1/jobs/{job_id}/cancel first."
            raise Conflict(f"Job {job_id} is {row.status}; only a job that is over can be deleted.", hint=hint)
        trash.put(session, row, days=parts.settings.trash_days)
    return row


def delete_dataset(parts: Parts, project_id: str, dataset_id: str) -> DatasetRow:
    """Into the trash. Raises NotFound; Conflict while a job needs it."""
    with _found(parts, DatasetRow, project_id, dataset_id, missing("ds", dataset_id)) as (session, row):
        _refuse_needed(session, row, "dataset")
        trash.put(session, row, days=parts.settings.trash_days)
    return row


def delete_model(parts: Parts, project_id: str, model_id: str) -> ModelRow:
    """Into the trash. Raises NotFound; Conflict while a job is taught by it."""
    with _found(parts, ModelRow, project_id, model_id, missing("mdl", model_id)) as (session, row):
        _refuse_needed(session, row, "model")
        trash.put(session, row, days=parts.settings.trash_days)
    return row


def restore_job(parts: Parts, project_id: str, job_id: str) -> JobRow:
    """Out of the trash. Raises NotFound, also when it has been removed for good."""
    with _found(parts, JobRow, project_id, job_id, missing("job", job_id)) as (session, row):
        trash.take_out(session, row)
    return row


def restore_dataset(parts: Parts, project_id: str, dataset_id: str) -> DatasetRow:
    """Out of the trash. Raises NotFound, also when it has been removed for good."""
    with _found(parts, DatasetRow, project_id, dataset_id, missing("ds", dataset_id)) as (session, row):
        trash.take_out(session, row)
    return row


def restore_model(parts: Parts, project_id: str, model_id: str) -> ModelRow:
    """Out of the trash. Raises NotFound, also when it has been removed for good."""
    with _found(parts, ModelRow, project_id, model_id, missing("mdl", model_id)) as (session, row):
        trash.take_out(session, row)
    return row


@contextmanager
def _found(
    parts: Parts, table: type[AnyThing], project_id: str, id: str, nothing: NotFound
) -> Iterator[tuple[Session, AnyThing]]:
    """The row in a writing transaction, locked."""
    if ID_PATTERN.fullmatch(id) is None:  # nothing else is asked of the database
        raise nothing
    with parts.of(project_id).write() as session:
        row = trash.locked(session, table, project_id, id)
        if row is None:
            raise nothing
        yield session, row


def _refuse_needed(session: Session, row: Thing, what: str) -> None:
    needed_by = trash.readers(session, row)
    if not needed_by:
        return
    more = f" (and {len(needed_by) - 1} more)" if len(needed_by) > 1 else ""
    hint = f"Delete the {what} once they are over, or cancel them."
    raise Conflict(f"Job {needed_by[0]}{more} needs this {what}.", hint=hint)
