"""Series of numbers of jobs. A new attempt takes them up where it resumes: what a lost one told after that goes."""

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base


class MetricRow(Base):
    """One value of one series."""

    __tablename__ = "job_metric"

    job_id: Mapped[str] = mapped_column(ForeignKey("job.id"), primary_key=True)
    attempt: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(80), primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True)
    value: Mapped[float]
    position: Mapped[int] = mapped_column(server_default="0")
    """How many points of the job were told before it."""
