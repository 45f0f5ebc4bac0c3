"""Projects: who owns what."""

from datetime import datetime
from typing import Any

from sqlalchemy import String, Text
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base


class ProjectRow(Base):
    """A tenant. Every other row belongs to one."""

    __tablename__ = "project"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    name: Mapped[str] = mapped_column(String(100), unique=True)
    created_at: Mapped[datetime]
    served_at: Mapped[datetime | None]
    """When a worker last took up a job of it."""
    limits: Mapped[dict[str, Any] | None]
    """Of its own, in place of the service's (`models.project_limits`)."""
    webhook_secret: Mapped[str | None] = mapped_column(Text)
    """Sealed (`core.sealing`); None until it is first needed."""
    webhook_secret_previous: Mapped[str | None] = mapped_column(Text)
    webhook_secret_previous_until: Mapped[datetime | None]
    """The previous secret signs too until then."""
