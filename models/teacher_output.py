"""Kept outputs of teachers, and the jobs that read them."""

from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base


class TeacherOutputRow(Base):
    """Outputs of one teacher over one dataset: being made by one attempt of a job, or ready in the storage.

    While they are made, the row is that attempt's claim: it lapses with the job's lease.
    """

    __tablename__ = "teacher_output"
    __table_args__ = (
        Index("ix_teacher_output_project_key", "project_id", "key", unique=True),
        CheckConstraint("status IN ('making', 'ready')", name="known_status"),
        CheckConstraint("(status = 'ready') = (storage_key IS NOT NULL)", name="ready_has_file"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("project.id"))
    key: Mapped[str] = mapped_column(String(64))
    """Digest of all that the outputs depend on."""
    status: Mapped[str] = mapped_column(String(10))
    dataset_id: Mapped[str] = mapped_column(ForeignKey("dataset.id"))
    teacher: Mapped[str] = mapped_column(String(200))
    teacher_model_id: Mapped[str | None] = mapped_column(String(40))
    job_id: Mapped[str] = mapped_column(ForeignKey("job.id"))
    """The job that makes or made them."""
    attempt: Mapped[int]
    """And which attempt of it."""
    part: Mapped[str] = mapped_column(String(10))
    """train or held_out."""
    views: Mapped[int]
    top_k: Mapped[int | None]
    rows: Mapped[int]
    bytes: Mapped[int] = mapped_column(BigInteger)
    storage_key: Mapped[str | None] = mapped_column(String(300))
    hits: Mapped[int]
    """Other jobs that read them."""
    created_at: Mapped[datetime]
    last_used_at: Mapped[datetime]


class TeacherOutputUseRow(Base):
    """A job that made outputs or reads them. While it runs, they stay."""

    __tablename__ = "teacher_output_use"

    output_id: Mapped[str] = mapped_column(ForeignKey("teacher_output.id"), primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("job.id"), primary_key=True)
