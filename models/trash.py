"""The trash: what is deleted stays for some days, and can be had back. `models.purge` removes it for good."""

from datetime import datetime, timedelta
from typing import Any, TypeVar

from sqlalchemy import Text, cast, exists, select
from sqlalchemy.orm import Session

from models.base import db_now
from models.dataset import DatasetRow
from models.job import JobRow
from models.model import ModelRow
from stillhouse.spec.states import FINAL

Thing = JobRow | DatasetRow | ModelRow
AnyThing = TypeVar("AnyThing", JobRow, DatasetRow, ModelRow)

_AT_ONCE = 200


def locked(session: Session, table: type[AnyThing], project_id: str, id: str) -> AnyThing | None:
    """A row of the project, in the trash or not, held until the transaction ends; None when it was purged."""
    query = select(table).where(table.id == id, table.project_id == project_id, table.purging_at.is_(None))
    return session.scalars(query.with_for_update(), execution_options={"populate_existing": True}).one_or_none()


def readers(session: Session, row: Thing) -> list[str]:
    """Ids of jobs, waiting or under way, that need it: itself, or what it is the dataset or a teacher of."""
    is_open = [JobRow.project_id == row.project_id, JobRow.status.not_in(FINAL)]
    if isinstance(row, JobRow):
        return list(session.scalars(select(JobRow.id).where(JobRow.id == row.id, *is_open)))
    if isinstance(row, DatasetRow):
        query = select(JobRow.id).where(JobRow.dataset_id == row.id, *is_open)
        return list(session.scalars(query.order_by(JobRow.id)))
    # The database looks for the id anywhere in the spec, which may be too much; where it stands is looked at here.
    mentions = cast(JobRow.resolved, Text).contains(row.id)
    found = session.execute(select(JobRow.id, JobRow.resolved).where(mentions, *is_open).order_by(JobRow.id))
    return [job_id for job_id, resolved in found if row.id in teachers_of(resolved)]


def put(session: Session, row: Thing, *, days: float) -> None:
    """Into the trash. What is there already stays as it is."""
    if row.deleted_at is not None:
        return
    row.deleted_at = db_now(session)
    row.purge_at = row.deleted_at + timedelta(days=days)
    _changed(session, row)


def take_out(session: Session, row: Thing) -> None:
    """Undo `put`."""
    if row.deleted_at is None:
        return
    row.deleted_at = row.purge_at = None
    _changed(session, row)


def expire_jobs(session: Session, *, after_days: float, trash_days: float) -> int:
    """Put jobs that ended longer ago into the trash."""
    query = select(JobRow).where(
        JobRow.status.in_(FINAL), JobRow.deleted_at.is_(None), JobRow.finished_at < _ago(session, after_days)
    )
    rows = session.scalars(query.limit(_AT_ONCE).with_for_update(skip_locked=True)).all()
    for row in rows:
        put(session, row, days=trash_days)
    return len(rows)


def expire_datasets(session: Session, *, after_days: float, trash_days: float) -> int:
    """Put datasets that came longer ago, and that no job has named since, into the trash."""
    since = _ago(session, after_days)
    used = exists().where(JobRow.dataset_id == DatasetRow.id, JobRow.created_at >= since)
    query = select(DatasetRow).where(
        DatasetRow.deleted_at.is_(None), DatasetRow.purging_at.is_(None), DatasetRow.created_at < since, ~used
    )
    return _expire(session, query, trash_days)


def expire_models(session: Session, *, after_days: float, trash_days: float) -> int:
    """Put models that came longer ago, and that taught no job since, into the trash."""
    since = _ago(session, after_days)
    mentioned = cast(JobRow.resolved, Text).contains(ModelRow.id)
    taught = exists().where(JobRow.project_id == ModelRow.project_id, JobRow.created_at >= since, mentioned)
    query = select(ModelRow).where(
        ModelRow.deleted_at.is_(None), ModelRow.purging_at.is_(None), ModelRow.created_at < since, ~taught
    )
    return _expire(session, query, trash_days)


def teachers_of(resolved: dict[str, Any]) -> set[str]:
    """Ids of the models that teach in a resolved spec."""
    teacher = resolved["teacher"]
    members = (teacher.get("ensemble") or {}).get("members", [teacher])
    return {member["model"] for member in members if member.get("model")}


def _expire(session: Session, query: Any, trash_days: float) -> int:
    rows = session.scalars(query.limit(_AT_ONCE).with_for_update(skip_locked=True)).all()
    idle = [row for row in rows if not readers(session, row)]
    for row in idle:
        put(session, row, days=trash_days)
    return len(idle)


def _ago(session: Session, days: float) -> datetime:
    return db_now(session) - timedelta(days=days)


def _changed(session: Session, row: Thing) -> None:
    if isinstance(row, JobRow):
        row.version += 1
    session.flush()
