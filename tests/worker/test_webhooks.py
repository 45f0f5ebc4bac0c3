"""Webhooks from the end of a job to the receiver, on both databases, with a real receiver on loopback."""

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import func, select, update

from core.db import Database
from core.outbound import Guard
from core.sealing import Sealer
from core.settings import Settings
from models import keys, lifecycle, verbs, webhook_secrets, webhooks
from models.base import db_now
from models.job import JobRow
from models.project import ProjectRow
from models.webhook_delivery import WebhookDeliveryRow
from stillhouse.spec.states import JobStatus
from stillhouse.spec.views import JobError
from stillhouse.spec.webhook import WEBHOOK_ERRORS, WebhookMessage
from tests.receiver import Receiver, receiver
from tests.worker.hooked import ENDS, SEALER, Hooked, verified
from tests.worker.service import Service, each, eventually, spec
from worker.webhooks import SCHEDULE_SECONDS, TRIES


@pytest.fixture
def hooked(database: Database, project: str) -> Hooked:
    return Hooked(database, project)


@pytest.fixture
def hook() -> Iterator[Receiver]:
    with receiver() as made:
        yield made


# What is sent


@pytest.mark.parametrize("how", ENDS)
def test_every_end_of_a_job_is_told_and_signed(hooked: Hooked, hook: Receiver, how: str) -> None:
    job_id = hooked.submit({"url": hook.url})
    courier = hooked.courier()
    assert not courier.deliver_next()
    hooked.end(job_id, how)
    assert courier.deliver_next()
    assert not courier.deliver_next()
    [got] = hook.received
    job, row = hooked.job(job_id), hooked.delivery(job_id)
    assert json.loads(got.body) == {
        "type": f"job.{ENDS[how]}",
        "timestamp": job.finished_at.isoformat().replace("+00:00", "Z"),
        "data": {
            "job_id": job_id,
            "name": "digits",
            "status": ENDS[how],
            "verdict": "passed" if how == "succeeded" else None,
            "error_code": {"failed": "out_of_memory", "attempts exhausted": "attempts_exhausted"}.get(how),
            "url": f"/v1/jobs/{job_id}",
        },
    }
    assert WebhookMessage.model_validate_json(got.body).data.job_id == job_id
    assert len(got.body) < 20_000
    assert got.path == "/hook/s3cret?token=t0ken"
    assert got.headers["content-type"] == "application/json"
    assert got.headers["webhook-id"] == row.id
    assert row.id.startswith("evt_")
    assert abs(int(got.headers["webhook-timestamp"]) - time.time()) < 300
    assert verified(got, hooked.secret())
    assert (row.status, row.attempts, row.last_status, row.last_error) == ("delivered", 1, 204, None)
    assert row.next_at is None
    assert row.finished_at is not None


def test_a_signature_holds_for_its_own_message_alone(hooked: Hooked, hook: Receiver) -> None:
    hooked.end(hooked.submit({"url": hook.url}), "succeeded")
    hooked.courier().deliver_next()
    [got] = hook.received
    secret = hooked.secret()
    assert verified(got, secret)
    assert not verified(replace(got, body=got.body + b" "), secret)
    assert not verified(replace(got, headers=got.headers | {"webhook-id": "evt_other"}), secret)
    assert not verified(replace(got, headers=got.headers | {"webhook-timestamp": "1"}), secret)
    assert not verified(got, "whsec_" + "A" * 43 + "=")


def test_only_the_ends_asked_for_are_told(hooked: Hooked, hook: Receiver) -> None:
    for how, status in ENDS.items():
        others = [other for other in ("succeeded", "failed", "cancelled") if other != status]
        silent = hooked.submit({"url": hook.url, "events": others})
        told = hooked.submit({"url": hook.url, "events": [status]})
        without = hooked.submit(None)
        for job_id in (silent, told, without):
            hooked.end(job_id, how)
        assert [len(hooked.deliveries(job_id)) for job_id in (silent, told, without)] == [0, 1, 0]


def test_a_job_of_a_service_before_webhooks_ends_as_ever(hooked: Hooked) -> None:
    job_id = hooked.submit(None)
    with hooked.database.write() as session:
        old = {key: value for key, value in hooked.job(job_id).resolved.items() if key != "webhook"}
        session.execute(update(JobRow).where(JobRow.id == job_id).values(resolved=old))
    hooked.end(job_id, "succeeded")
    assert hooked.deliveries(job_id) == []


# The row and the end of the job are one


class Broken(Exception):
    pass


def test_the_row_is_there_if_and_only_if_the_end_was_committed(hooked: Hooked) -> None:
    job_id = hooked.submit({"url": "https://example.com/"})
    lease = hooked.claim(job_id)
    with contextlib.suppress(Broken), hooked.database.write() as session:
        assert lifecycle.succeed(session, lease, {})
        assert len(webhooks.of_job(session, job_id)) == 1
        raise Broken
    assert (hooked.job(job_id).status, hooked.deliveries(job_id)) == ("running", [])
    with hooked.database.write() as session:
        assert lifecycle.succeed(session, lease, {})
    assert (hooked.job(job_id).status, hooked.delivery(job_id).status) == ("succeeded", "pending")
    with hooked.database.write() as session:
        assert not lifecycle.fail(session, lease, _error())
        assert verbs.request_cancel(session, job_id) == "succeeded"
    assert hooked.delivery(job_id).attempts == 0


def test_an_attempt_that_is_lost_but_not_the_last_tells_nobody(hooked: Hooked) -> None:
    job_id = hooked.submit({"url": "https://example.com/"})
    lease = hooked.claim(job_id)
    with hooked.database.write() as session:
        assert lifecycle.lose_attempt(session, lease, "Gone.", limit=3, retry_seconds=1)
        assert not lifecycle.succeed(session, lease, {})
    assert hooked.deliveries(job_id) == []


# Tries


def test_a_failed_try_is_made_again_with_the_same_id_and_body(hooked: Hooked, hook: Receiver) -> None:
    hook.answers = [(500, {}), (404, {})]
    job_id, courier = hooked.submit({"url": hook.url}), hooked.courier()
    hooked.end(job_id, "succeeded")
    for number, status in enumerate((500, 404), start=1):
        assert courier.deliver_next()
        assert not courier.deliver_next(), "the next try must wait"
        row = hooked.delivery(job_id)
        assert (row.status, row.attempts, row.last_status, row.last_error) == ("pending", number, status, "bad_status")
        hooked.make_due(job_id)
    assert courier.deliver_next()
    row = hooked.delivery(job_id)
    assert (row.status, row.attempts, row.last_status, row.last_error) == ("delivered", 3, 204, None)
    assert len(hook.received) == 3
    assert len({(got.headers["webhook-id"], got.body) for got in hook.received}) == 1
    assert all(verified(got, hooked.secret()) for got in hook.received)


def test_the_pauses_grow_as_the_standard_recommends_and_then_it_gives_up(hooked: Hooked, hook: Receiver) -> None:
    assert SCHEDULE_SECONDS == (5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400)
    hook.answers = [(503, {})] * 20
    job_id, courier = hooked.submit({"url": hook.url}), hooked.courier()
    hooked.end(job_id, "failed")
    for pause in SCHEDULE_SECONDS:
        before = datetime.now(UTC)
        assert courier.deliver_next()
        at = hooked.delivery(job_id).next_at
        assert at is not None
        spread = timedelta(seconds=0.1 * pause)
        assert before + timedelta(seconds=pause) - spread <= at
        assert at <= datetime.now(UTC) + timedelta(seconds=pause) + spread
        hooked.make_due(job_id)
    assert courier.deliver_next()
    row = hooked.delivery(job_id)
    assert (row.status, row.attempts, row.next_at, row.last_status) == ("gave_up", TRIES, None, 503)
    assert not courier.deliver_next()
    assert len(hook.received) == TRIES == 10
    told = hooked.told(job_id)
    assert [event.level for event in told] == ["warning"] * 9 + ["error"]
    assert [event.data["attempt"] for event in told] == list(range(1, 11))


def test_410_ends_it_at_once(hooked: Hooked, hook: Receiver) -> None:
    hook.answers = [(410, {})]
    job_id, courier = hooked.submit({"url": hook.url}), hooked.courier()
    hooked.end(job_id, "succeeded")
    assert courier.deliver_next()
    row = hooked.delivery(job_id)
    assert (row.status, row.last_status, row.last_error, row.next_at) == ("gave_up", 410, "gone", None)
    assert not courier.deliver_next()


def test_a_redirect_is_a_failure_and_leads_nowhere(hooked: Hooked, hook: Receiver) -> None:
    with receiver() as inside:
        hook.answers = [(307, {"Location": inside.url})]
        job_id = hooked.submit({"url": hook.url})
        hooked.end(job_id, "succeeded")
        hooked.courier().deliver_next()
    row = hooked.delivery(job_id)
    assert (row.status, row.last_status, row.last_error) == ("pending", 307, "redirect")
    assert inside.received == []


def test_a_url_the_operator_no_longer_allows_is_not_called(hooked: Hooked, hook: Receiver) -> None:
    job_id = hooked.submit({"url": hook.url})
    hooked.end(job_id, "succeeded")
    hooked.courier(Guard()).deliver_next()
    row = hooked.delivery(job_id)
    assert (row.status, row.last_status, row.last_error) == ("pending", None, "url_not_allowed")
    assert hook.received == []


def test_a_name_that_leads_inside_looks_like_one_that_leads_nowhere(hooked: Hooked, hook: Receiver) -> None:
    def inside(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    def nowhere(host: str, port: int) -> list[str]:
        raise OSError("no such name")

    seen = []
    for resolve in (inside, nowhere):
        job_id = hooked.submit({"url": f"http://hook.example.com:{hook.port}/s3cret"})
        hooked.end(job_id, "succeeded")
        hooked.courier(Guard(plain_http=True, resolve=resolve)).deliver_next()
        row, [event] = hooked.delivery(job_id), hooked.told(job_id)
        message, _, _ = event.message.partition(" follows at ")
        seen.append((row.status, row.last_status, row.last_error, message, event.data["last_error"]))
    assert seen[0] == seen[1]
    assert seen[0][2] == "no_answer"
    assert hook.received == []


def test_what_happened_is_told_without_the_secrets_of_the_url(hooked: Hooked, hook: Receiver) -> None:
    hook.answers = [(500, {"X-Answer": "canary"}), (204, {})]
    job_id, courier = hooked.submit({"url": hook.url}), hooked.courier()
    hooked.end(job_id, "succeeded")
    version = hooked.job(job_id).version
    courier.deliver_next()
    hooked.make_due(job_id)
    courier.deliver_next()
    failed, delivered = hooked.told(job_id)
    endpoint = f"http://127.0.0.1:{hook.port}"
    assert failed.message.startswith(
        f"The webhook at {endpoint} was not told (HTTP 500). {WEBHOOK_ERRORS['bad_status']}"
    )
    assert "Try 2 of 10 follows at" in failed.message
    assert delivered.message == f"The webhook at {endpoint} was told (HTTP 204)."
    assert (failed.data["status"], delivered.data["status"]) == ("pending", "delivered")
    assert failed.data["next_at"] is not None
    for event in (failed, delivered):
        for secret in ("s3cret", "t0ken", "canary", "whsec"):
            assert secret not in event.message + json.dumps(event.data)
    assert hooked.job(job_id).version == version + 2


# Two who would deliver the same


def test_one_try_is_claimed_once(hooked: Hooked) -> None:
    hooked.end(hooked.submit({"url": "https://example.com/"}), "succeeded")
    with hooked.database.read() as session:
        [wanted] = webhooks.due(session, limit=10)
    with hooked.database.write() as session:
        assert webhooks.claim(session, wanted, hold_seconds=60)
    with hooked.database.write() as session:
        assert not webhooks.claim(session, wanted, hold_seconds=60)
        assert webhooks.due(session, limit=10) == []


def test_a_try_whose_process_died_is_made_again_and_its_late_outcome_dropped(hooked: Hooked, hook: Receiver) -> None:
    job_id = hooked.submit({"url": hook.url})
    hooked.end(job_id, "succeeded")
    with hooked.database.write() as session:
        [dead] = webhooks.due(session, limit=10)
        assert webhooks.claim(session, dead, hold_seconds=60)
    assert not hooked.courier().deliver_next()
    hooked.make_due(job_id)
    hook.answers = [(500, {})]
    assert hooked.courier().deliver_next()
    with hooked.database.write() as session:
        assert not webhooks.finish(session, dead, "delivered", status=200, error=None)
        assert webhooks.retry(session, dead, pause_seconds=0, status=None, error="no_answer") is None
    row = hooked.delivery(job_id)
    assert (row.status, row.attempts, row.last_status) == ("pending", 2, 500)


@pytest.mark.parametrize("database_kind", ["postgres"], indirect=True)  # on SQLite writers come one after the other
def test_a_receiver_that_has_the_job_tried_again_at_once_waits_for_nobody_who_waits_for_it(
    hooked: Hooked, hook: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = hooked.submit({"url": hook.url})
    hooked.end(job_id, "failed")
    finish, asked = webhooks.finish, []

    def try_again() -> JobStatus | None:
        with hooked.database.write() as session:
            return verbs.request_retry(session, job_id)

    with ThreadPoolExecutor() as pool:

        def finish_meanwhile(*args: Any, **named: Any) -> bool:
            done = finish(*args, **named)
            asked.append(pool.submit(try_again))
            wait(asked, timeout=2)
            return done

        monkeypatch.setattr(webhooks, "finish", finish_meanwhile)
        assert hooked.courier().deliver_next()
        assert [one.result() for one in asked] == [JobStatus.QUEUED]


def test_many_couriers_deliver_each_message_once(hooked: Hooked, hook: Receiver) -> None:
    waiting = [hooked.submit({"url": hook.url}) for _ in range(12)]
    for job_id in waiting:
        hooked.end(job_id, "cancelled while waiting")
    failures: list[BaseException] = []

    def work() -> None:
        courier = hooked.courier()
        try:
            while courier.deliver_next():
                pass
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    sent = [got.headers["webhook-id"] for got in hook.received]
    assert sorted(sent) == sorted(hooked.delivery(job_id).id for job_id in waiting)


def test_a_project_with_many_messages_does_not_hold_up_the_others(hooked: Hooked, database: Database) -> None:
    with database.write() as session:
        other = Hooked(database, keys.project_named(session, "other").id)
    for _ in range(5):
        hooked.end(hooked.submit({"url": "https://example.com/"}), "cancelled while waiting")
    late = other.submit({"url": "https://example.com/"})
    other.end(late, "cancelled while waiting")
    with database.read() as session:
        first = [wanted.delivery_id for wanted in webhooks.due(session, limit=2)]
    assert other.delivery(late).id in first


def test_a_message_that_cannot_be_made_does_not_hold_up_the_others(hooked: Hooked, hook: Receiver) -> None:
    broken, whole = hooked.submit({"url": hook.url}), hooked.submit({"url": hook.url})
    for job_id in (broken, whole):
        hooked.end(job_id, "cancelled while waiting")
    with hooked.database.write() as session:
        session.execute(update(JobRow).where(JobRow.id == broken).values(resolved={"webhook": {}}))
    courier = hooked.courier()
    with pytest.raises(KeyError):
        courier.deliver_next()
    assert courier.deliver_next()
    assert [hooked.delivery(job_id).status for job_id in (broken, whole)] == ["pending", "delivered"]


# Secrets


def test_after_a_rotation_both_secrets_sign_for_a_day(hooked: Hooked, hook: Receiver) -> None:
    old = hooked.secret()
    new = hooked.rotate()
    assert new != old
    assert hooked.secret() == new
    job_id = hooked.submit({"url": hook.url})
    hooked.end(job_id, "succeeded")
    hooked.courier().deliver_next()
    [got] = hook.received
    assert len(got.headers["webhook-signature"].split(" ")) == 2
    assert verified(got, new)
    assert verified(got, old)
    with hooked.database.write() as session:
        assert session.get_one(ProjectRow, hooked.project).webhook_secret_previous_until > db_now(session) + timedelta(
            hours=23, minutes=59
        )
        session.execute(update(ProjectRow).values(webhook_secret_previous_until=db_now(session)))
    hooked.end(hooked.submit({"url": hook.url}), "succeeded")
    hooked.courier().deliver_next()
    late = hook.received[1]
    assert verified(late, new)
    assert not verified(late, old)


def test_the_database_does_not_hold_the_secret_itself(hooked: Hooked) -> None:
    shown = hooked.secret()
    with hooked.database.read() as session:
        stored = session.get_one(ProjectRow, hooked.project).webhook_secret
    assert stored is not None
    assert shown.removeprefix("whsec_") not in stored
    assert webhook_secrets.shown(SEALER.open(stored, owner=hooked.project)) == shown


def test_a_secret_made_by_two_at_once_is_one(hooked: Hooked) -> None:
    made: list[str] = []
    threads = [threading.Thread(target=lambda: made.append(hooked.secret())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(made) == 4
    assert len(set(made)) == 1


def test_a_secret_sealed_under_another_key_signs_nothing_until_it_is_rotated(hooked: Hooked, hook: Receiver) -> None:
    hooked.secret(Sealer(b"another key of the service's own ...."))
    job_id = hooked.submit({"url": hook.url})
    hooked.end(job_id, "succeeded")
    hooked.courier().deliver_next()
    row = hooked.delivery(job_id)
    assert (row.status, row.last_error, hook.received) == ("pending", "secret_unreadable", [])
    new = hooked.rotate()
    hooked.make_due(job_id)
    hooked.courier().deliver_next()
    [got] = hook.received
    assert verified(got, new)
    assert len(got.headers["webhook-signature"].split(" ")) == 1


# Real processes


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """As an operator would allow a receiver beside the service."""
    return settings.model_copy(update={"outbound_allow": ("127.0.0.0/8",), "outbound_http": True})


def test_two_reconcilers_deliver_each_message_once(service: Service, hooked: Hooked, hook: Receiver) -> None:
    waiting = [hooked.submit({"url": hook.url}) for _ in range(20)]
    for job_id in waiting:
        hooked.end(job_id, "cancelled while waiting")
    for _ in range(2):
        service.start_reconciler()
    eventually(lambda: _pending(hooked) == 0, "all are delivered")
    sent = [got.headers["webhook-id"] for got in hook.received]
    assert sorted(sent) == sorted(hooked.delivery(job_id).id for job_id in waiting)
    assert all(hooked.delivery(job_id).attempts == 1 for job_id in waiting)
    assert all(verified(got, hooked.secret()) for got in hook.received)


def test_receivers_that_let_us_wait_do_not_hold_up_leases(service: Service, hooked: Hooked, hook: Receiver) -> None:
    hook.hold = threading.Event()
    for _ in range(20):
        hooked.end(hooked.submit({"url": hook.url}), "cancelled while waiting")
    service.start_reconciler()
    eventually(lambda: len(hook.received) >= 8, "all couriers wait")
    job_id = hooked.submit({"url": hook.url})
    hooked.claim(job_id)
    hooked.expire(job_id)
    eventually(lambda: hooked.job(job_id).status == "queued", "the lease is taken back")
    assert _pending(hooked) == 20
    hook.hold.set()
    eventually(lambda: _pending(hooked) == 0, "all are delivered")


def test_a_real_job_tells_its_end_and_its_files_keep_the_url_secret(service: Service, hook: Receiver) -> None:
    job_id = service.submit(spec(webhook={"url": hook.url}))
    service.start_reconciler()
    service.start_worker()
    job = service.wait(job_id, "succeeded", "failed")
    eventually(lambda: hook.received, "the receiver is told")
    hooked = Hooked(service.database, service.project)
    assert json.loads(hook.received[0].body)["type"] == f"job.{job.status}" == "job.succeeded"
    assert verified(hook.received[0], hooked.secret())
    assert "told" in eventually(lambda: [m for m in service.messages(job_id) if "webhook" in m], "an event says so")[0]
    kept = list(each(service.settings.data_dir / "storage"))
    assert len(kept) > 3
    for path in kept:
        assert b"s3cret" not in path.read_bytes(), path.name


def _pending(hooked: Hooked) -> int:
    with hooked.database.read() as session:
        query = select(func.count()).where(WebhookDeliveryRow.status == "pending")
        return session.execute(query).scalar_one()


def _error() -> JobError:
    return JobError(code="out_of_memory", detail="d", hint="h")
