"""Models the service holds: students and teachers of jobs, and uploaded teachers, ready to teach."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Json
from models.trashable import Trashable


class ModelRow(Trashable, Base):
    """One model. Its weights are an artifact of the job that made it, or a file of its own when it was uploaded."""

    __tablename__ = "model"
    __table_args__ = (Index("ix_model_project", "project_id", "id"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("project.id"))
    job_id: Mapped[str | None] = mapped_column(ForeignKey("job.id"))
    former_job_id: Mapped[str | None] = mapped_column(String(40))
    """The job that made it, once that was purged."""
    name: Mapped[str] = mapped_column(String(100))
    role: Mapped[str] = mapped_column(String(10))
    format: Mapped[str] = mapped_column(String(20), server_default="stillhouse")
    config: Mapped[dict[str, Any]]
    notes: Mapped[list[str]] = mapped_column(Json, server_default="[]")
    weights_key: Mapped[str] = mapped_column(String(300))
    bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64))
    accuracy: Mapped[float | None]
    created_at: Mapped[datetime]
    missing_at: Mapped[datetime | None]
    """When `fsck` found that its file is lost."""
