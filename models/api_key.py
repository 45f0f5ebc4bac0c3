"""API keys. Only a digest is kept: the key itself is shown once."""

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base


class ApiKeyRow(Base):
    """One key of one project."""

    __tablename__ = "api_key"
    __table_args__ = (CheckConstraint("scope IN ('read', 'write', 'admin')", name="known_scope"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("project.id"), index=True)
    name: Mapped[str] = mapped_column(String(100))
    scope: Mapped[str] = mapped_column(String(10), server_default="admin")
    """Keys from before there were scopes could do everything, and still can."""
    start: Mapped[str] = mapped_column(String(12), server_default="shk_")
    """How the key begins, for people to tell keys apart."""
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    """SHA-256 of the whole key; enough for 160 random bits."""
    created_at: Mapped[datetime]
    last_used_at: Mapped[datetime | None]
    """Noted once a minute at most."""
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    replaced_by: Mapped[str | None] = mapped_column(String(40))
