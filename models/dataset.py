"""Stored datasets."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base
from models.trashable import Trashable


class DatasetRow(Trashable, Base):
    """A dataset whose file is in the storage. There is no row without a checked file, but for what stays of a purged
    one (`purging_at`) as long as a job names it."""

    __tablename__ = "dataset"
    __table_args__ = (Index("ix_dataset_project_builtin", "project_id", "builtin", unique=True),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("project.id"))
    name: Mapped[str] = mapped_column(String(100))
    builtin: Mapped[str | None] = mapped_column(String(40))
    """Name in the catalogue, when it came with the service; once per project."""
    format: Mapped[str] = mapped_column(String(20))
    storage_key: Mapped[str] = mapped_column(String(300))
    bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64))
    facts: Mapped[dict[str, Any]]
    report: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]
    missing_at: Mapped[datetime | None]
    """When `fsck` found that its file is lost."""
