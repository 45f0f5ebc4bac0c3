"""The transitions of a job, on both databases."""

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from sqlalchemy import update
from sqlalchemy.orm import Session

from core.db import Database
from models import attempts, datasets, events, jobs, lifecycle, queue, verbs
from models.base import db_now
from models.job import JobRow
from models.scheduling import Machine
from stillhouse.spec.facts import DataFacts, DataReport, StoredDataset
from stillhouse.spec.ids import new_id
from stillhouse.spec.job import JobSpec
from stillhouse.spec.states import FINAL, JobStatus
from stillhouse.spec.views import JobError

SPEC = JobSpec.model_validate(
    {
        "teacher": {"train": {"architecture": {"name": "mlp"}}},
        "dataset": {"builtin": "digits"},
        "student": {"name": "mlp"},
    }
)
FACTS = DataFacts(
    task="image-classification",
    shape=(1, 8, 8),
    dtype="uint8",
    classes=("a", "b"),
    rows={"train": 10, "validation": 2, "test": 2},
)
MACHINE = Machine(cuda=False, memory_bytes=8 * 10**9, cores=2)
REPORT = DataReport(rows_read=14, rows_kept=14, rows_dropped=0, class_counts={})


@pytest.fixture
def job_id(database: Database, project: str) -> str:
    with database.write() as session:
        stored = StoredDataset(facts=FACTS, report=REPORT)
        data = datasets.add(
            session,
            project,
            id=new_id("ds"),
            name="d",
            format="builtin",
            storage_key="k",
            bytes=1,
            sha256="0" * 64,
            stored=stored,
        )
        return jobs.create(session, project, spec=SPEC, resolved=SPEC, dataset_id=data.id).id


def claimed(database: Database, job_id: str, worker: str = "wrk_a") -> lifecycle.Lease:
    with database.write() as session:
        lease = lifecycle.claim(session, job_id, worker, lease_seconds=60)
    assert lease is not None
    return lease


def row(database: Database, job_id: str) -> JobRow:
    with database.read() as session:
        found = session.get(JobRow, job_id)
    assert found is not None
    return found


def let_lease_run_out(database: Database, job_id: str) -> None:
    with database.write() as session:
        past = db_now(session) - timedelta(seconds=1)
        session.execute(update(JobRow).where(JobRow.id == job_id).values(lease_until=past))


def db_now_of(database: Database) -> datetime:
    with database.read() as session:
        return db_now(session)


def make_due(database: Database, job_id: str) -> None:
    with database.write() as session:
        session.execute(update(JobRow).where(JobRow.id == job_id).values(next_run_at=db_now(session)))


def test_a_waiting_job_is_claimed_once(database: Database, job_id: str) -> None:
    claimed(database, job_id)
    with database.write() as session:
        assert lifecycle.claim(session, job_id, "wrk_b", lease_seconds=60) is None
    assert row(database, job_id).attempt == 1


def test_a_job_is_not_claimed_before_its_time(database: Database, job_id: str) -> None:
    with database.write() as session:
        later = db_now(session) + timedelta(minutes=1)
        session.execute(update(JobRow).where(JobRow.id == job_id).values(next_run_at=later))
    with database.write() as session:
        assert lifecycle.claim(session, job_id, "wrk_a", lease_seconds=60) is None
        assert queue.claim_next(session, "wrk_a", MACHINE, running_limit=1, lease_seconds=60) is None


def test_an_older_attempt_can_write_nothing(database: Database, job_id: str) -> None:
    old = claimed(database, job_id)
    let_lease_run_out(database, job_id)
    with database.write() as session:
        assert lifecycle.expired(session) == [(job_id, 1)]
        assert lifecycle.take_back(session, job_id, 1, limit=3, retry_seconds=0)
    new = claimed(database, job_id, "wrk_b")
    before = row(database, job_id)
    with database.write() as session:
        assert not lifecycle.renew(session, old, lease_seconds=60)
        assert not lifecycle.report_progress(session, old, phase="distilling", progress=None)
        assert not lifecycle.succeed(session, old, {})
        assert not lifecycle.fail(session, old, JobError(code="x", detail="x", hint="x"))
        assert not lifecycle.hand_back(session, old, "x")
        assert not lifecycle.lose_attempt(session, old, "x", limit=3, retry_seconds=0)
        assert not lifecycle.add_event(session, job_id, lifecycle.Note(type="log", message="x"), lease=old)
        assert not events.add_metrics(session, old, [{"name": "a/b", "step": 1, "value": 1.0}])
        assert lifecycle.status_under(session, old) is None
        assert lifecycle.status_under(session, new) is JobStatus.RUNNING
    after = row(database, job_id)
    assert (after.version, after.event_seq, after.status) == (before.version, before.event_seq, "running")


def test_a_lease_that_was_renewed_is_not_taken_back(database: Database, job_id: str) -> None:
    lease = claimed(database, job_id)
    let_lease_run_out(database, job_id)
    with database.write() as session:
        assert lifecycle.renew(session, lease, lease_seconds=60)
    with database.write() as session:
        assert not lifecycle.take_back(session, job_id, 1, limit=3, retry_seconds=0)
    assert row(database, job_id).status == "running"


def test_renewing_is_no_visible_change(database: Database, job_id: str) -> None:
    lease = claimed(database, job_id)
    version = row(database, job_id).version
    with database.write() as session:
        assert lifecycle.renew(session, lease, lease_seconds=60)
    assert row(database, job_id).version == version


def test_lost_attempts_end_at_the_limit(database: Database, job_id: str) -> None:
    for _ in range(2):
        lease = claimed(database, job_id)
        with database.write() as session:
            assert lifecycle.lose_attempt(session, lease, "The trainer was killed.", limit=3, retry_seconds=0)
        assert row(database, job_id).status == "queued"
    lease = claimed(database, job_id)
    with database.write() as session:
        assert lifecycle.lose_attempt(session, lease, "The trainer was killed.", limit=3, retry_seconds=0)
    ended = row(database, job_id)
    assert ended.status == "failed"
    assert ended.error is not None
    assert ended.error["code"] == "attempts_exhausted"
    assert "The trainer was killed." in ended.error["detail"]


def test_each_lost_attempt_waits_four_times_as_long(database: Database, job_id: str) -> None:
    pauses = []
    for _ in range(2):
        lease = claimed(database, job_id)
        with database.write() as session:
            now = db_now(session)
            lifecycle.lose_attempt(session, lease, "x", limit=9, retry_seconds=100)
        pauses.append((row(database, job_id).next_run_at - now).total_seconds())
        make_due(database, job_id)
    assert pauses == pytest.approx([100, 400], abs=5)


def test_a_job_handed_back_does_not_count_as_lost(database: Database, job_id: str) -> None:
    for _ in range(5):
        lease = claimed(database, job_id)
        with database.write() as session:
            assert lifecycle.hand_back(session, lease, "The worker stops.")
    assert row(database, job_id).lost_attempts == 0
    assert row(database, job_id).status == "queued"


def test_cancelling_a_waiting_job_is_immediate(database: Database, job_id: str) -> None:
    with database.write() as session:
        assert verbs.request_cancel(session, job_id) is JobStatus.CANCELLED
        assert lifecycle.claim(session, job_id, "wrk_a", lease_seconds=60) is None


def test_cancel_beats_a_result_that_comes_later(database: Database, job_id: str) -> None:
    lease = claimed(database, job_id)
    with database.write() as session:
        assert verbs.request_cancel(session, job_id) is JobStatus.CANCELLING
        assert verbs.request_cancel(session, job_id) is JobStatus.CANCELLING
        assert not lifecycle.succeed(session, lease, {})
        assert not lifecycle.lose_attempt(session, lease, "x", limit=3, retry_seconds=0)
        assert lifecycle.cancelled(session, lease)
        assert verbs.request_cancel(session, job_id) is JobStatus.CANCELLED
    assert row(database, job_id).finished_at is not None


def test_a_cancelled_job_whose_worker_died_is_ended(database: Database, job_id: str) -> None:
    claimed(database, job_id)
    with database.write() as session:
        verbs.request_cancel(session, job_id)
    let_lease_run_out(database, job_id)
    with database.write() as session:
        assert lifecycle.take_back(session, job_id, 1, limit=3, retry_seconds=0)
    assert row(database, job_id).status == "cancelled"


def test_a_final_job_never_changes(database: Database, job_id: str) -> None:
    lease = claimed(database, job_id)
    with database.write() as session:
        assert lifecycle.succeed(session, lease, {"report": {}})
    done = row(database, job_id)
    with database.write() as session:
        assert verbs.request_cancel(session, job_id) is JobStatus.SUCCEEDED
        assert not lifecycle.succeed(session, lease, {})
        assert not lifecycle.hand_back(session, lease, "x")
        assert lifecycle.claim(session, job_id, "wrk_b", lease_seconds=60) is None
    assert row(database, job_id).version == done.version


def test_events_are_numbered_without_gaps(database: Database, job_id: str) -> None:
    lease = claimed(database, job_id)
    with database.write() as session:
        lifecycle.add_events(session, lease, [lifecycle.Note(type="log", message=str(i)) for i in range(5)])
        lifecycle.succeed(session, lease, {})
    with database.read() as session:
        found = events.page(session, job_id, after=0, limit=100)
    assert [event.seq for event in found] == list(range(1, 9))
    assert [event.message for event in found[2:7]] == list("01234")


def points(*steps: int, value: float, first: int) -> list[dict[str, object]]:
    return [{"name": "a/b", "step": s, "value": value, "position": first + n} for n, s in enumerate(steps)]


def test_an_attempt_that_goes_on_replaces_what_was_told_after_that(database: Database, job_id: str) -> None:
    first = claimed(database, job_id)
    with database.write() as session:
        assert events.add_metrics(session, first, points(1, 2, 3, 4, value=1.0, first=0))
        lifecycle.lose_attempt(session, first, "x", limit=9, retry_seconds=0)
    second = claimed(database, job_id)
    with database.write() as session:
        assert not events.cut_metrics(session, first, 0)  # a lost lease cuts nothing
        assert events.cut_metrics(session, second, 2)
        assert events.add_metrics(session, second, points(3, value=2.0, first=2))
    with database.read() as session:
        found = events.series(session, job_id, names=(), first=None, last=None)
    assert found == {"a/b": [(1, 1.0), (2, 1.0), (3, 2.0)]}


def test_points_written_twice_are_kept_once(database: Database, job_id: str) -> None:
    lease = claimed(database, job_id)
    for _ in range(2):
        with database.write() as session:
            assert events.add_metrics(session, lease, [{"name": "a/b", "step": s, "value": 1.0} for s in (1, 2)])
    with database.read() as session:
        found = events.series(session, job_id, names=(), first=None, last=None)
    assert found == {"a/b": [(1, 1.0), (2, 1.0)]}


def test_a_success_recorded_by_a_lost_answer_is_known_as_ones_own(database: Database, job_id: str) -> None:
    lease = claimed(database, job_id)
    with database.write() as session:
        assert lifecycle.succeed(session, lease, {})
    with database.write() as session:
        assert not lifecycle.succeed(session, lease, {})
        assert lifecycle.succeeded_under(session, lease)
        other = lifecycle.Lease(job_id=job_id, worker_id="wrk_b", attempt=1)
        assert not lifecycle.succeeded_under(session, other)


def test_every_transition_written_is_a_legal_one() -> None:
    for status in JobStatus:
        # What is over stays so, unless it is tried again.
        goes_on = {other for other in JobStatus if status.can_become(other)}
        assert goes_on <= {JobStatus.QUEUED} if status.final else goes_on
        assert status.wording
    assert {status for status in JobStatus if status.final} == FINAL
    assert not any(JobStatus.SUCCEEDED.can_become(other) for other in JobStatus)


def test_a_job_being_paused_whose_worker_died_is_paused(database: Database, job_id: str) -> None:
    claimed(database, job_id)
    with database.write() as session:
        assert verbs.request_pause(session, job_id) is JobStatus.PAUSING
        session.execute(update(JobRow).values(lease_until=db_now(session) - timedelta(seconds=1)))
        assert lifecycle.take_back(session, job_id, 1, limit=3, retry_seconds=1)
    found = row(database, job_id)
    assert (found.status, found.lost_attempts, found.worker_id, found.lease_until) == ("paused", 1, None, None)


def test_a_job_resumed_while_it_is_being_paused_goes_back_to_the_queue(database: Database, job_id: str) -> None:
    lease = claimed(database, job_id)
    with database.write() as session:
        assert verbs.request_pause(session, job_id) is JobStatus.PAUSING
        assert verbs.request_resume(session, job_id) is JobStatus.RUNNING
        # Its trainer had been told to stop by then.
        assert lifecycle.hand_back(session, lease, "Put aside.")
    assert (row(database, job_id).status, row(database, job_id).lost_attempts) == ("queued", 0)


def test_the_error_of_a_poison_job_tells_of_each_attempt(database: Database, job_id: str) -> None:
    for number in (1, 2, 3):
        lease = claimed(database, job_id)
        progress = {"epoch": 1, "epochs": 9, "step": 10 * number, "steps": 90}
        with database.write() as session:
            lifecycle.report_progress(session, lease, phase="training_teacher", progress=progress)
            lifecycle.add_event(session, job_id, lifecycle.Note(type="log", message=f"line {number}"), lease=lease)
            reason = f"It ended in way {number}."
            exit = {"signal": "SIGKILL", "out_of_memory": True}
            assert lifecycle.lose_attempt(session, lease, reason, limit=3, retry_seconds=0, exit=exit)
    ended = row(database, job_id)
    assert ended.status == "failed"
    assert ended.error is not None
    for number in (1, 2, 3):
        told = f"Attempt {number}, training teacher, step {10 * number} of 90: It ended in way {number}."
        assert f'{told} Its log ended: "line {number}"' in ended.error["detail"]
    with database.read() as session:
        lost = [event.data for event in events.page(session, job_id, after=0, limit=100) if event.data.get("lost")]
    assert [data["exit"] for data in lost] == [{"signal": "SIGKILL", "out_of_memory": True}] * 3
    assert [data["log"] for data in lost] == [["line 1"], ["line 2"], ["line 3"]]


def test_time_spent_is_that_of_attempts_that_are_over_without_waiting_and_pauses(
    database: Database, job_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hour = timedelta(hours=1)
    clock = [db_now_of(database)]
    monkeypatch.setattr(lifecycle, "db_now", lambda _: clock[0])

    def spent() -> float:
        with database.read() as session:
            return attempts.seconds_spent(session, job_id) / 3600

    def attempt(hours: int, end: Callable[[Session, lifecycle.Lease], object]) -> None:
        clock[0] += 5 * hour  # it waits
        lease = claimed(database, job_id)
        clock[0] += hours * hour
        with database.write() as session:
            assert end(session, lease)

    assert spent() == 0
    attempt(2, lambda s, lease: lifecycle.hand_back(s, lease, "x"))
    assert spent() == 2
    attempt(3, lambda s, lease: lifecycle.lose_attempt(s, lease, "x", limit=9, retry_seconds=0))
    assert spent() == 5
    attempt(1, lambda s, lease: verbs.request_pause(s, job_id) and lifecycle.hand_back(s, lease, "x"))
    assert spent() == 6
    with database.write() as session:
        verbs.request_resume(session, job_id)
    attempt(4, lambda s, lease: lifecycle.fail(s, lease, JobError(code="time_limit", detail="x", hint="x")))
    with database.write() as session:
        verbs.request_retry(session, job_id)
    assert spent() == 0
