"""Kept outputs on record: one makes them, all read them, the least recently used make room."""

from concurrent.futures import ThreadPoolExecutor, wait
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select, update

from core.db import Database
from models import keys, teacher_outputs
from models.base import db_now
from models.job import JobRow
from models.lifecycle import Lease
from models.teacher_output import TeacherOutputRow, TeacherOutputUseRow
from models.teacher_outputs import Turn
from stillhouse.spec.events import OutputsWanted
from tests.worker.hooked import Hooked

LIMIT = 1000


class Jobs:
    """Jobs of one project that need outputs."""

    def __init__(self, database: Database, project: str) -> None:
        self.database, self.project, self.hooked = database, project, Hooked(database, project)

    def start(self) -> Lease:
        return self.hooked.claim(self.hooked.submit(None))

    def turn(self, lease: Lease, key: str = "k", *, bytes: int = 100, project: str | None = None) -> Turn:
        wanted = OutputsWanted(key=key, teacher="mlp", views=1, top_k=None, rows=10, bytes=bytes)
        dataset = self.hooked.job(lease.job_id).dataset_id
        with self.database.write() as session:
            return teacher_outputs.turn(
                session,
                project or self.project,
                lease,
                wanted,
                dataset_id=dataset,
                teacher_model_id=None,
                max_bytes=LIMIT,
            )

    def ready(self, lease: Lease, key: str = "k") -> bool:
        with self.database.write() as session:
            return teacher_outputs.ready(session, self.project, lease, key, storage_key=f"file of {key}")

    def make(self, key: str, *, bytes: int = 100) -> Lease:
        """A job that made outputs, and is over."""
        lease = self.start()
        assert self.turn(lease, key, bytes=bytes).what == "make"
        assert self.ready(lease, key)
        self.end(lease)
        return lease

    def end(self, lease: Lease) -> None:
        self.hooked.expire(lease.job_id)
        with self.database.write() as session:
            values = {"status": "cancelled", "finished_at": db_now(session), "lease_until": None}
            session.execute(update(JobRow).where(JobRow.id == lease.job_id).values(**values))

    def rows(self) -> dict[str, TeacherOutputRow]:
        with self.database.read() as session:
            return {row.key: row for row in session.scalars(select(TeacherOutputRow))}


@pytest.fixture
def jobs(database: Database, project: str) -> Jobs:
    return Jobs(database, project)


def test_one_makes_them_the_others_wait_and_then_read(jobs: Jobs) -> None:
    first, second, third = jobs.start(), jobs.start(), jobs.start()
    assert jobs.turn(first) == Turn(what="make")
    assert jobs.turn(first) == Turn(what="make")  # asked again: still its own
    assert jobs.turn(second).what == jobs.turn(third).what == "wait"
    assert jobs.ready(first)
    for reader in (second, third, second):
        assert jobs.turn(reader) == Turn(what="read", storage_key="file of k")
    row = jobs.rows()["k"]
    assert (row.status, row.job_id, row.hits) == ("ready", first.job_id, 2)


def test_a_claim_lapses_with_the_lease_and_is_taken_over(jobs: Jobs) -> None:
    dead, other = jobs.start(), jobs.start()
    jobs.turn(dead)
    jobs.hooked.expire(dead.job_id)
    taken = jobs.turn(other)
    assert taken.what == "make"
    # What the dead one may have stored without saying so goes.
    assert taken.evicted == (teacher_outputs.file_key(jobs.project, "k", dead.job_id, 1),)
    # It wakes up: nothing it made counts.
    assert not jobs.ready(dead)
    assert jobs.ready(other)
    assert jobs.rows()["k"].job_id == other.job_id


def test_outputs_on_record_are_ready_also_when_the_answer_to_that_was_lost(jobs: Jobs) -> None:
    maker = jobs.start()
    jobs.turn(maker)
    assert jobs.ready(maker)
    assert jobs.ready(maker)
    jobs.end(maker)
    assert jobs.ready(maker)
    assert jobs.turn(jobs.start()) == Turn(what="read", storage_key="file of k")


def test_the_next_attempt_of_a_job_takes_over_from_the_one_before(jobs: Jobs) -> None:
    lease = jobs.start()
    jobs.turn(lease)
    with jobs.database.write() as session:
        session.execute(update(JobRow).where(JobRow.id == lease.job_id).values(attempt=2))
    again = Lease(job_id=lease.job_id, worker_id=lease.worker_id, attempt=2)
    assert jobs.turn(lease).what == "wait"  # the old one has no say any more
    assert jobs.turn(again).what == "make"
    assert not jobs.ready(lease)
    assert jobs.ready(again)


def test_who_cannot_keep_them_leaves_the_claim_to_others(jobs: Jobs) -> None:
    first, second = jobs.start(), jobs.start()
    jobs.turn(first)
    with jobs.database.write() as session:
        teacher_outputs.give_up(session, jobs.project, second, "k")  # not its own
    assert jobs.turn(second).what == "wait"
    with jobs.database.write() as session:
        teacher_outputs.give_up(session, jobs.project, first, "k")
    assert jobs.turn(second).what == "make"


def test_damaged_ones_are_forgotten_and_made_again_once(jobs: Jobs) -> None:
    jobs.make("k")
    reader = jobs.start()
    assert jobs.turn(reader).storage_key == "file of k"
    with jobs.database.write() as session:
        teacher_outputs.forget(session, jobs.project, "k", "another file")
    assert "k" in jobs.rows()
    with jobs.database.write() as session:
        teacher_outputs.forget(session, jobs.project, "k", "file of k")
    assert jobs.rows() == {}
    assert jobs.turn(reader).what == "make"


def test_the_least_recently_used_make_room(jobs: Jobs) -> None:
    for key in ("a", "b", "c"):
        jobs.make(key, bytes=300)
    with jobs.database.write() as session:  # a was used just now, b longest ago
        for days, key in ((0, "a"), (2, "b"), (1, "c")):
            at = db_now(session) - timedelta(days=days)
            statement = update(TeacherOutputRow).where(TeacherOutputRow.key == key)
            session.execute(statement.values(last_used_at=at))
    assert jobs.turn(jobs.start(), "small", bytes=100).evicted == ()
    assert jobs.turn(jobs.start(), "large", bytes=300).evicted == ("file of b",)
    assert jobs.turn(jobs.start(), "larger", bytes=450).evicted == ("file of c", "file of a")
    assert set(jobs.rows()) == {"small", "large", "larger"}
    with jobs.database.read() as session:
        uses = session.execute(select(func.count()).select_from(TeacherOutputUseRow)).scalar_one()
    assert uses == 0


def test_what_running_jobs_read_or_make_stays_whatever_the_limit(jobs: Jobs) -> None:
    jobs.make("read", bytes=500)
    reader, maker = jobs.start(), jobs.start()
    assert jobs.turn(reader, "read", bytes=500).what == "read"
    assert jobs.turn(maker, "made", bytes=500).what == "make"
    assert jobs.turn(jobs.start(), "new", bytes=900) == Turn(what="make")
    assert set(jobs.rows()) == {"read", "made", "new"}
    jobs.end(reader)
    jobs.end(maker)
    assert jobs.turn(jobs.start(), "newer", bytes=50).evicted == ("file of read",)
    assert set(jobs.rows()) == {"new", "newer"}


@pytest.mark.parametrize("database_kind", ["postgres"], indirect=True)  # on SQLite writers come one after the other
def test_what_somebody_takes_up_at_the_same_moment_makes_no_room(jobs: Jobs) -> None:
    jobs.make("old", bytes=600)
    reader, maker = jobs.start(), jobs.start()
    old = OutputsWanted(key="old", teacher="mlp", views=1, top_k=None, rows=10, bytes=600)
    with ThreadPoolExecutor() as pool:
        with jobs.database.write() as session:
            facts = {"dataset_id": "", "teacher_model_id": None, "max_bytes": LIMIT}
            assert teacher_outputs.turn(session, jobs.project, reader, old, **facts).what == "read"
            made = pool.submit(jobs.turn, maker, "new", bytes=600)
            wait([made], timeout=2)  # it may look before the reader's transaction has ended
        assert made.result() == Turn(what="make")
    assert set(jobs.rows()) == {"old", "new"}


def test_projects_keep_apart(jobs: Jobs, database: Database) -> None:
    jobs.make("k", bytes=900)
    with database.write() as session:
        other = keys.project_named(session, "other").id
    theirs = Jobs(database, other)
    lease = theirs.start()
    assert theirs.turn(lease, "k", bytes=900) == Turn(what="make")
    assert len(_all(database)) == 2


def test_a_lost_lease_gets_nothing(jobs: Jobs) -> None:
    lease = jobs.start()
    jobs.end(lease)
    assert jobs.turn(lease).what == "wait"
    assert jobs.rows() == {}


def test_a_second_of_two_who_come_at_the_same_moment_waits(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = jobs.start(), jobs.start()
    assert jobs.turn(first).what == "make"
    real: Any = teacher_outputs._of
    # It looked before the first one's row was there.
    monkeypatch.setattr(teacher_outputs, "_of", lambda project, key: real(project, "nothing yet"))
    assert jobs.turn(second).what == "wait"
    monkeypatch.undo()
    assert jobs.rows()["k"].job_id == first.job_id


def _all(database: Database) -> list[TeacherOutputRow]:
    with database.read() as session:
        return list(session.scalars(select(TeacherOutputRow)))
