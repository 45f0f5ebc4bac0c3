"""Checkpoints of jobs that are not over."""

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base


class CheckpointRow(Base):
    """One checkpoint in the storage. Recorded under the lease of the attempt that wrote it; the newest two stay."""

    __tablename__ = "checkpoint"

    job_id: Mapped[str] = mapped_column(ForeignKey("job.id"), primary_key=True)
    attempt: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    """Of the file; rises within an attempt, and goes on rising in one that resumes."""
    phase: Mapped[str] = mapped_column(String(30))
    epoch: Mapped[int]
    step: Mapped[int]
    steps: Mapped[int]
    loss: Mapped[float | None]
    best: Mapped[bool]
    """The best student so far is the one of this moment."""
    points: Mapped[int]
    """Metric points of the job told before it: an attempt that resumes from it goes on with that one."""
    bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64))
    storage_key: Mapped[str] = mapped_column(String(300))
    created_at: Mapped[datetime]
