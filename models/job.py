"""Jobs: the truth about what was asked, what happens and what came out."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, String, false, text
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Json
from models.trashable import Trashable
from stillhouse.spec.states import ACTIVE, FINAL

_ACTIVE = ", ".join(f"'{status.value}'" for status in sorted(ACTIVE))
_FINAL = ", ".join(f"'{status.value}'" for status in sorted(FINAL))


class JobRow(Trashable, Base):
    """One job. Its status is written by `models.lifecycle` alone."""

    __tablename__ = "job"
    __table_args__ = (
        Index("ix_job_project", "project_id", "id"),
        # Waiting and running jobs are few among many finished ones. Leases are not indexed, so that renewing
        # one stays an in-place update on PostgreSQL.
        Index(
            "ix_job_open",
            "status",
            "id",
            sqlite_where=text(f"status NOT IN ({_FINAL})"),
            postgresql_where=text(f"status NOT IN ({_FINAL})"),
        ),
        Index("ix_job_dataset", "dataset_id"),
        Index(
            "ix_job_trash",
            "purge_at",
            sqlite_where=text("deleted_at IS NOT NULL"),
            postgresql_where=text("deleted_at IS NOT NULL"),
        ),
        CheckConstraint(f"(status IN ({_FINAL})) = (finished_at IS NOT NULL)", name="finished_iff_final"),
        # On SQLite `pausing` is held to it by triggers (migration 20261124_14).
        CheckConstraint(f"status NOT IN ({_ACTIVE}) OR lease_until IS NOT NULL", name="active_has_lease"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("project.id"))
    name: Mapped[str | None] = mapped_column(String(100))
    status: Mapped[str] = mapped_column(String(20))
    phase: Mapped[str | None] = mapped_column(String(30))
    progress: Mapped[dict[str, Any] | None]
    verdict: Mapped[str | None] = mapped_column(String(20))
    conditions: Mapped[list[dict[str, Any]]]
    error: Mapped[dict[str, Any] | None]
    spec: Mapped[dict[str, Any]]
    resolved: Mapped[dict[str, Any]]
    labels: Mapped[dict[str, Any]]
    cloned_from: Mapped[str | None] = mapped_column(String(40))
    wish: Mapped[str | None] = mapped_column(String(10))
    """`finish`: stop training now and go on with the best. Other wishes are statuses."""
    dataset_id: Mapped[str] = mapped_column(ForeignKey("dataset.id"))
    report: Mapped[dict[str, Any] | None]
    student_model_id: Mapped[str | None] = mapped_column(String(40))
    teacher_model_id: Mapped[str | None] = mapped_column(String(40))
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    version: Mapped[int] = mapped_column(default=1)

    attempt: Mapped[int] = mapped_column(default=0)
    """Claims so far. Also the fencing token: a write that names an older attempt changes nothing."""
    lost_attempts: Mapped[int] = mapped_column(default=0)
    """Attempts that ended with their trainer or worker; the limit counts these."""
    farthest: Mapped[list[int] | None] = mapped_column(Json)
    """The farthest place a checkpoint was ever kept at (`models.checkpoints.place_of`), since the last `retry`."""
    worker_id: Mapped[str | None] = mapped_column(String(40))
    lease_until: Mapped[datetime | None]
    next_run_at: Mapped[datetime]
    """Not to be claimed before."""
    turn_at: Mapped[datetime | None]
    """When it was submitted, earlier by its priority: of a project's jobs the one with the earliest comes first. None:
    an older release submitted it."""
    needs_cuda: Mapped[bool] = mapped_column(default=False, server_default=false())
    needs_memory_bytes: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    rung_at: Mapped[datetime | None]
    """When the doorbell was last rung for it."""
    event_seq: Mapped[int] = mapped_column(default=0)
    """Number of its latest event. Counted here, so that events are without gaps in the order of their commits."""
