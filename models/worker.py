"""Workers and their heartbeats."""

from datetime import datetime

from sqlalchemy import BigInteger, String
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base


class WorkerRow(Base):
    """One supervisor process. Fresh when `seen_at` is younger than a lease."""

    __tablename__ = "worker"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    host: Mapped[str] = mapped_column(String(255))
    pid: Mapped[int]
    cuda: Mapped[bool | None]
    """What its machine has. None: a worker of an older release, which does not say."""
    memory_bytes: Mapped[int | None] = mapped_column(BigInteger)
    cores: Mapped[int | None]
    job_id: Mapped[str | None] = mapped_column(String(40))
    started_at: Mapped[datetime]
    seen_at: Mapped[datetime]
