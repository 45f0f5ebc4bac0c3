"""Holds on the storage: while one is in force, nothing is removed for good."""

from datetime import datetime

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base


class StorageHoldRow(Base):
    """One hold. It lapses by itself, so that a backup that died holds nothing up for long."""

    __tablename__ = "storage_hold"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    reason: Mapped[str] = mapped_column(String(100))
    until: Mapped[datetime]
