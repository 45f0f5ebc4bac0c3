"""API keys. Only a digest is kept: the key itself is shown once."""

from datetime import datetime

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base


class ApiKeyRow(Base):
    """One key of one project."""

    __tablename__ = "api_key"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("project.id"), index=True)
    name: Mapped[str] = mapped_column(String(100))
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    """SHA-256 of the whole key; enough for 160 random bits."""
    created_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]
