"""Queries on webhook deliveries. A try is claimed by a guarded update, so that of two who would make it one does."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from models.base import db_now
from models.job import JobRow
from models.webhook_delivery import WebhookDeliveryRow
from stillhouse.spec.ids import new_id


@dataclass(frozen=True, kw_only=True)
class Try:
    """The right to make one try."""

    delivery_id: str
    attempt: int
    """From 1."""


def notify(session: Session, job_id: str, status: str, *, at: datetime) -> None:
    """Add the message that a job is over, when its spec asks for one. Call it in the transaction that ends the job."""
    job = session.execute(select(JobRow.project_id, JobRow.resolved).where(JobRow.id == job_id)).one()
    webhook = job.resolved.get("webhook")
    if webhook is None or status not in webhook["events"]:
        return
    session.add(
        WebhookDeliveryRow(
            id=new_id("evt"),
            job_id=job_id,
            project_id=job.project_id,
            status="pending",
            attempts=0,
            next_at=at,
            created_at=at,
        )
    )
    session.flush()


def due(session: Session, *, limit: int) -> list[Try]:
    """Tries that could be made now. Projects take turns, so that one with many does not hold up the others."""
    turn = func.row_number().over(
        partition_by=WebhookDeliveryRow.project_id, order_by=(WebhookDeliveryRow.next_at, WebhookDeliveryRow.id)
    )
    query = (
        select(WebhookDeliveryRow.id, WebhookDeliveryRow.attempts)
        .where(WebhookDeliveryRow.status == "pending", WebhookDeliveryRow.next_at <= db_now(session))
        .order_by(turn, WebhookDeliveryRow.next_at)
        .limit(limit)
    )
    return [Try(delivery_id=id, attempt=attempts + 1) for id, attempts in session.execute(query)]


def claim(session: Session, wanted: Try, *, hold_seconds: float) -> bool:
    """Take a try. For `hold_seconds` nobody else makes it; after that it is taken for lost. False: it is gone."""
    now = db_now(session)
    statement = (
        update(WebhookDeliveryRow)
        .where(
            WebhookDeliveryRow.id == wanted.delivery_id,
            WebhookDeliveryRow.attempts == wanted.attempt - 1,
            WebhookDeliveryRow.status == "pending",
            WebhookDeliveryRow.next_at <= now,
        )
        .values(attempts=wanted.attempt, next_at=now + timedelta(seconds=hold_seconds))
    )
    return _changed(session, statement)


def hold_job(session: Session, job_id: str) -> None:
    """Before an outcome is written: who has a job tried again holds the job and then its messages, so that order is
    kept by all."""
    session.execute(select(JobRow.id).where(JobRow.id == job_id).with_for_update(key_share=True))


def retry(session: Session, made: Try, *, pause_seconds: float, status: int | None, error: str) -> datetime | None:
    """The try failed and another follows. Returns when; None when a later try has been claimed already."""
    at = db_now(session) + timedelta(seconds=pause_seconds)
    done = _settle(session, made, {"next_at": at, "last_status": status, "last_error": error})
    return at if done else None


def finish(session: Session, made: Try, outcome: str, *, status: int | None, error: str | None) -> bool:
    """The try was the last: `outcome` is delivered or gave_up. False when a later try has been claimed already."""
    values = {"status": outcome, "next_at": None, "finished_at": db_now(session)}
    return _settle(session, made, values | {"last_status": status, "last_error": error})


def with_job(session: Session, delivery_id: str) -> tuple[WebhookDeliveryRow, JobRow]:
    """A delivery and its job."""
    query = select(WebhookDeliveryRow, JobRow).join(JobRow, JobRow.id == WebhookDeliveryRow.job_id)
    delivery, job = session.execute(query.where(WebhookDeliveryRow.id == delivery_id)).one()
    return delivery, job


def of_job(session: Session, job_id: str) -> list[WebhookDeliveryRow]:
    """Deliveries of a job: at most one today."""
    query = select(WebhookDeliveryRow).where(WebhookDeliveryRow.job_id == job_id)
    return list(session.scalars(query.order_by(WebhookDeliveryRow.id)))


def _settle(session: Session, made: Try, values: dict[str, Any]) -> bool:
    guards = [
        WebhookDeliveryRow.id == made.delivery_id,
        WebhookDeliveryRow.attempts == made.attempt,
        WebhookDeliveryRow.status == "pending",
    ]
    return _changed(session, update(WebhookDeliveryRow).where(*guards).values(**values))


def _changed(session: Session, statement: Any) -> bool:
    result: Any = session.execute(statement)
    return int(result.rowcount) == 1
