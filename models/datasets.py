"""Queries on datasets."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from models.base import db_now
from models.dataset import DatasetRow
from stillhouse.spec.facts import StoredDataset


def add(
    session: Session,
    project_id: str,
    *,
    id: str,
    name: str,
    format: str,
    storage_key: str,
    bytes: int,
    sha256: str,
    stored: StoredDataset,
    builtin: str | None = None,
) -> DatasetRow:
    """Record a dataset whose file is already in the storage."""
    row = DatasetRow(
        id=id,
        project_id=project_id,
        name=name,
        builtin=builtin,
        format=format,
        storage_key=storage_key,
        bytes=bytes,
        sha256=sha256,
        facts=stored.facts.model_dump(mode="json"),
        report=stored.report.model_dump(mode="json"),
        created_at=db_now(session),
    )
    session.add(row)
    session.flush()
    return row


def get(session: Session, project_id: str, dataset_id: str, *, share: bool = False) -> DatasetRow | None:
    """A dataset of this project, in the trash or not. `share`: it does not change until the transaction ends."""
    query = select(DatasetRow).where(
        DatasetRow.id == dataset_id, DatasetRow.project_id == project_id, DatasetRow.purging_at.is_(None)
    )
    return session.scalars(query.with_for_update(read=True) if share else query).one_or_none()


def by_builtin(session: Session, project_id: str, builtin: str) -> DatasetRow | None:
    """The project's copy of a builtin dataset, once somebody used it."""
    query = select(DatasetRow).where(DatasetRow.project_id == project_id, DatasetRow.builtin == builtin)
    return session.scalars(query).one_or_none()


def page(
    session: Session, project_id: str, *, before: str | None, limit: int, deleted: bool = False
) -> list[DatasetRow]:
    """Datasets (`deleted`: those in the trash) newest first; one more than `limit` tells that there are more."""
    query = select(DatasetRow).where(
        DatasetRow.project_id == project_id,
        DatasetRow.purging_at.is_(None),
        DatasetRow.deleted_at.is_not(None) if deleted else DatasetRow.deleted_at.is_(None),
    )
    if before is not None:
        query = query.where(DatasetRow.id < before)
    return list(session.scalars(query.order_by(DatasetRow.id.desc()).limit(limit + 1)))
