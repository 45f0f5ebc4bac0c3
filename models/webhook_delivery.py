"""Messages about jobs that are over, to be delivered to the webhooks of their specs."""

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, Index, String, text
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base


class WebhookDeliveryRow(Base):
    """One message. Added in the transaction that ends its job; what it says is read from the job at each try."""

    __tablename__ = "webhook_delivery"
    __table_args__ = (
        Index(
            "ix_webhook_delivery_due",
            "next_at",
            sqlite_where=text("status = 'pending'"),
            postgresql_where=text("status = 'pending'"),
        ),
        CheckConstraint("(status = 'pending') = (next_at IS NOT NULL)", name="pending_has_next"),
        CheckConstraint("(status = 'pending') = (finished_at IS NULL)", name="finished_iff_not_pending"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    """`evt_…`: the header `webhook-id` of every try."""
    job_id: Mapped[str] = mapped_column(ForeignKey("job.id"), unique=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("project.id"))
    status: Mapped[str] = mapped_column(String(20))
    """pending, delivered or gave_up."""
    attempts: Mapped[int]
    """Claims so far. Also the fencing token of the try that runs: an outcome that names an older one is dropped."""
    next_at: Mapped[datetime | None]
    """Not to be tried before. While a try runs: when it is taken for lost."""
    last_status: Mapped[int | None]
    last_error: Mapped[str | None] = mapped_column(String(40))
    created_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]
