"""Idempotency keys of job submissions."""

from datetime import datetime

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base


class IdempotencyRow(Base):
    """Written in the transaction of the job it names, so that one cannot exist without the other."""

    __tablename__ = "idempotency"

    project_id: Mapped[str] = mapped_column(ForeignKey("project.id"), primary_key=True)
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    body_sha256: Mapped[str] = mapped_column(String(64))
    job_id: Mapped[str] = mapped_column(ForeignKey("job.id"))
    created_at: Mapped[datetime]
