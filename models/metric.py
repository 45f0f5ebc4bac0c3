"""Series of numbers of jobs. Rows are only ever added, and a new attempt starts its series anew."""

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
