"""The audit log: who did what to which object, and how it ended."""

from datetime import datetime

from sqlalchemy import ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base


class AuditRow(Base):
    """One request. The database itself refuses to change a row, and to delete one of the last thirty days."""

    __tablename__ = "audit"
    __table_args__ = (Index("ix_audit_project", "project_id", "id"), Index("ix_audit_created", "created_at"))

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("project.id"))
    key_id: Mapped[str | None] = mapped_column(String(40))
    """None: an operator, on the service's own machine."""
    action: Mapped[str] = mapped_column(String(60))
    target: Mapped[str | None] = mapped_column(String(100))
    address: Mapped[str | None] = mapped_column(String(100))
    status: Mapped[int | None]
    code: Mapped[str | None] = mapped_column(String(40))
    """Of the problem the caller was answered with; None when there was none."""
    request_id: Mapped[str | None] = mapped_column(String(64))
    created_at: Mapped[datetime]
