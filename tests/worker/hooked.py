"""Jobs with a webhook, ended in every way there is, and a receiver's own check of what it was sent."""

import base64
import hashlib
import hmac
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import update

from core.db import Database
from core.outbound import Guard
from core.pinned import Poster
from core.sealing import Sealer
from models import datasets, events, jobs, lifecycle, verbs, webhook_secrets, webhooks
from models.base import db_now
from models.event import EventRow
from models.job import JobRow
from models.webhook_delivery import WebhookDeliveryRow
from stillhouse.spec.facts import DataFacts, DataReport, StoredDataset
from stillhouse.spec.ids import new_id
from stillhouse.spec.job import JobSpec
from stillhouse.spec.views import JobError
from tests.receiver import Received
from worker.webhooks import Courier

SEALER = Sealer(b"test-only-" + b"x" * 32)
LOCAL = Guard(allow=["127.0.0.0/8"], plain_http=True)


@dataclass
class Hooked:
    """Makes jobs of one project, and moves them."""

    database: Database
    project: str

    def courier(self, guard: Guard = LOCAL, sealer: Sealer = SEALER) -> Courier:
        """A courier that may call loopback."""
        return Courier(self.database, Poster(guard), sealer)

    def submit(self, webhook: dict[str, Any] | None, *, name: str | None = "digits") -> str:
        """A waiting job."""
        spec = JobSpec.model_validate(
            {
                "name": name,
                "teacher": {"train": {"architecture": {"name": "mlp"}}},
                "dataset": {"builtin": "digits"},
                "student": {"name": "mlp"},
                "webhook": webhook,
            }
        )
        with self.database.write() as session:
            data = datasets.add(
                session,
                self.project,
                id=new_id("ds"),
                name="d",
                format="csv",
                storage_key="k",
                bytes=1,
                sha256="0" * 64,
                stored=StoredDataset(facts=_FACTS, report=_REPORT),
            )
            return jobs.create(session, self.project, spec=spec, resolved=spec, dataset_id=data.id).id

    def claim(self, job_id: str, *, lease_seconds: float = 600) -> lifecycle.Lease:
        """queued → running."""
        with self.database.write() as session:
            lease = lifecycle.claim(session, job_id, "wrk_test", lease_seconds=lease_seconds)
        assert lease is not None
        return lease

    def end(self, job_id: str, how: str) -> None:
        """End a waiting job in one of `ENDS`."""
        lease = None if how == "cancelled while waiting" else self.claim(job_id)
        with self.database.write() as session:
            if how == "cancelled while waiting":
                assert verbs.request_cancel(session, job_id) == "cancelled"
                return
            assert lease is not None
            if how == "succeeded":
                assert lifecycle.succeed(session, lease, {"verdict": "passed"})
            elif how == "failed":
                assert lifecycle.fail(session, lease, JobError(code="out_of_memory", detail="d", hint="h"))
            elif how == "attempts exhausted":
                assert lifecycle.lose_attempt(session, lease, "Gone.", limit=1, retry_seconds=1)
            else:
                assert verbs.request_cancel(session, job_id) == "cancelling"
        if how == "cancelled while running":
            with self.database.write() as session:
                assert lifecycle.cancelled(session, lease)
        if how == "cancelled by the reconciler":
            self.expire(job_id)
            with self.database.write() as session:
                assert lifecycle.take_back(session, job_id, lease.attempt, limit=3, retry_seconds=1)

    def expire(self, job_id: str) -> None:
        """Let the lease run out."""
        with self.database.write() as session:
            past = db_now(session) - timedelta(seconds=1)
            session.execute(update(JobRow).where(JobRow.id == job_id).values(lease_until=past))

    def make_due(self, job_id: str) -> None:
        """The next try is due now."""
        with self.database.write() as session:
            statement = update(WebhookDeliveryRow).where(WebhookDeliveryRow.job_id == job_id)
            session.execute(statement.values(next_at=db_now(session)))

    def deliveries(self, job_id: str) -> list[WebhookDeliveryRow]:
        """Rows of a job."""
        with self.database.read() as session:
            return webhooks.of_job(session, job_id)

    def delivery(self, job_id: str) -> WebhookDeliveryRow:
        """The one row of a job."""
        [row] = self.deliveries(job_id)
        return row

    def told(self, job_id: str) -> list[EventRow]:
        """The job's events about its webhook."""
        with self.database.read() as session:
            return events.page(session, job_id, after=0, limit=100, type="webhook")

    def job(self, job_id: str) -> JobRow:
        """The row as it is now."""
        with self.database.read() as session:
            return session.get_one(JobRow, job_id)

    def secret(self, sealer: Sealer = SEALER) -> str:
        """The secret as the receiver is given it."""
        with self.database.write() as session:
            return webhook_secrets.shown(webhook_secrets.secrets_of(session, sealer, self.project).current)

    def rotate(self, sealer: Sealer = SEALER) -> str:
        """A new secret."""
        with self.database.write() as session:
            return webhook_secrets.shown(webhook_secrets.rotate(session, sealer, self.project).current)


ENDS = {
    "succeeded": "succeeded",
    "failed": "failed",
    "attempts exhausted": "failed",
    "cancelled while waiting": "cancelled",
    "cancelled while running": "cancelled",
    "cancelled by the reconciler": "cancelled",
}
"""Every way a job ends, and the status it then has."""


def verified(got: Received, secret: str) -> bool:
    """What a receiver does, from the text of Standard Webhooks 1.0 alone."""
    prefix, _, encoded = secret.partition("_")
    assert prefix == "whsec"
    key = base64.b64decode(encoded, validate=True)
    assert 24 <= len(key) <= 64
    signed = b".".join([got.headers["webhook-id"].encode(), got.headers["webhook-timestamp"].encode(), got.body])
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return f"v1,{expected}" in got.headers["webhook-signature"].split(" ")


_FACTS = DataFacts(
    task="image-classification",
    shape=(1, 8, 8),
    dtype="uint8",
    classes=("a", "b"),
    rows={"train": 10, "validation": 2, "test": 2},
)
_REPORT = DataReport(rows_read=14, rows_kept=14, rows_dropped=0, class_counts={})
