"""Queries on what jobs leave, artifacts and models, and on the models beside them that were uploaded."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from models.artifact import ArtifactRow
from models.base import db_now
from models.model import ModelRow
from stillhouse.spec.teachers import CheckedTeacher


def artifacts(session: Session, job_id: str) -> list[ArtifactRow]:
    """Files of a job, by name."""
    return list(session.scalars(select(ArtifactRow).where(ArtifactRow.job_id == job_id).order_by(ArtifactRow.name)))


def artifact(session: Session, job_id: str, name: str) -> ArtifactRow | None:
    """One file of a job."""
    return session.get(ArtifactRow, (job_id, name))


def add_teacher(
    session: Session, project_id: str, *, id: str, name: str, storage_key: str, checked: CheckedTeacher
) -> ModelRow:
    """Record an uploaded teacher whose file is already in the storage."""
    row = ModelRow(
        id=id,
        project_id=project_id,
        job_id=None,
        name=name,
        role="teacher",
        format=checked.format,
        config=checked.config.model_dump(mode="json"),
        notes=checked.notes,
        weights_key=storage_key,
        bytes=checked.bytes,
        sha256=checked.sha256,
        accuracy=None,
        created_at=db_now(session),
    )
    session.add(row)
    session.flush()
    return row


def model(session: Session, project_id: str, model_id: str, *, share: bool = False) -> ModelRow | None:
    """A model of this project, in the trash or not. `share`: it does not change until the transaction ends."""
    query = select(ModelRow).where(
        ModelRow.id == model_id, ModelRow.project_id == project_id, ModelRow.purging_at.is_(None)
    )
    return session.scalars(query.with_for_update(read=True) if share else query).one_or_none()


def models_page(
    session: Session, project_id: str, *, before: str | None, limit: int, deleted: bool = False
) -> list[ModelRow]:
    """Models (`deleted`: those in the trash) newest first; one more than `limit` tells that there are more."""
    query = select(ModelRow).where(
        ModelRow.project_id == project_id,
        ModelRow.purging_at.is_(None),
        ModelRow.deleted_at.is_not(None) if deleted else ModelRow.deleted_at.is_(None),
    )
    if before is not None:
        query = query.where(ModelRow.id < before)
    return list(session.scalars(query.order_by(ModelRow.id.desc()).limit(limit + 1)))
