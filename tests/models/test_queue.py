"""Claiming in turn, on both databases: nothing twice, nothing beyond a limit, however many ask at once."""

import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from core.db import Database
from models import datasets, jobs, keys, lifecycle, queue, verbs, workers
from models.base import db_now
from models.job import JobRow
from models.lifecycle import Lease
from models.scheduling import Machine
from models.worker import WorkerRow
from stillhouse.spec.errors import QueueFull
from stillhouse.spec.facts import DataFacts, DataReport, StoredDataset
from stillhouse.spec.ids import new_id
from stillhouse.spec.job import JobSpec
from stillhouse.spec.limits import Limits
from stillhouse.spec.views import JobError

PLAIN = Machine(cuda=False, memory_bytes=8 * 10**9, cores=2)
GPU = Machine(cuda=True, memory_bytes=64 * 10**9, cores=8)
Submit = Callable[..., str]


@pytest.fixture
def submit(database: Database) -> Submit:
    """Add a job to the project of this name, past the limit of those who wait."""

    def add(name: str, **changes: Any) -> str:
        with database.write() as session:
            project = keys.project_named(session, name).id
            data = datasets.by_builtin(session, project, "digits") or _digits(session, project)
            return jobs.create(session, project, spec=spec(**changes), resolved=spec(), dataset_id=data.id).id

    return add


def spec(**changes: Any) -> JobSpec:
    plain = {"teacher": {"train": {"architecture": {"name": "mlp"}}}, "dataset": {"builtin": "digits"}}
    return JobSpec.model_validate(plain | {"student": {"name": "mlp"}} | changes)


def _digits(session: Any, project: str) -> Any:
    facts = DataFacts(
        task="image-classification", shape=(1, 8, 8), dtype="uint8", classes=("a", "b"), rows={"train": 1}
    )
    report = DataReport(rows_read=1, rows_kept=1, rows_dropped=0, class_counts={})
    stored = StoredDataset(facts=facts, report=report)
    where = {"storage_key": f"projects/{project}/d", "bytes": 1, "sha256": "0" * 64, "stored": stored}
    return datasets.add(session, project, id=new_id("ds"), name="d", format="builtin", builtin="digits", **where)


def claim(database: Database, worker: str = "wrk_a", machine: Machine = PLAIN, *, limit: int = 100) -> Lease | None:
    with database.write() as session:
        return queue.claim_next(session, worker, machine, running_limit=limit, lease_seconds=60)


def claimed(database: Database, **options: Any) -> str | None:
    lease = claim(database, **options)
    return None if lease is None else lease.job_id


def line(database: Database, *, limit: int = 100) -> dict[str, tuple[int, str]]:
    with database.read() as session:
        found = queue.look(session, running_limit=limit, fresh_seconds=60).places
    return {job_id: (place.position, place.reason) for job_id, place in found.items()}


def alive(database: Database, worker: str = "wrk_a", machine: Machine = PLAIN) -> None:
    with database.write() as session:
        workers.register(session, worker, host="h", pid=1, machine=machine)


def test_projects_take_turns_and_priority_counts_within_one(database: Database, submit: Submit) -> None:
    flood = [submit("a") for _ in range(3)]
    urgent, late = submit("a", priority="high"), submit("b")
    assert [claimed(database) for _ in range(6)] == [urgent, late, *flood, None]


def test_a_job_goes_to_a_worker_that_has_what_it_needs(database: Database, submit: Submit) -> None:
    cuda, big, small = (
        submit("a", resources=needs)
        for needs in ({"device": "cuda"}, {"memory_gb": 8.5}, {"device": "cpu", "memory_gb": 8.0})
    )
    assert [claimed(database) for _ in range(2)] == [small, None]
    assert [claimed(database, machine=GPU) for _ in range(3)] == [cuda, big, None]


def test_a_job_of_an_older_release_has_its_turn_by_its_age(database: Database, submit: Submit) -> None:
    old, new = submit("a"), submit("a")
    with database.write() as session:
        session.execute(update(JobRow).where(JobRow.id == old).values(turn_at=None))
    assert [claimed(database) for _ in range(2)] == [old, new]


def test_a_job_cancelled_while_a_worker_chooses_it_is_passed(
    database: Database, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = submit("a"), submit("a")
    choose = queue.choose

    def choose_slowly(*given: Any, **options: Any) -> Any:
        found = choose(*given, **options)
        if found is not None and found.job_id == first:
            verbs.request_cancel(sessions[-1], first)
        return found

    sessions: list[Any] = []
    monkeypatch.setattr(queue, "choose", choose_slowly)
    with database.write() as session:
        sessions.append(session)
        lease = queue.claim_next(session, "wrk_a", PLAIN, running_limit=9, lease_seconds=60)
    assert lease is not None
    assert lease.job_id == second


@pytest.mark.parametrize("limit", [1, 3])
def test_workers_that_ask_at_once_claim_nothing_twice_and_keep_the_limit(
    database: Database, submit: Submit, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for project in "ab":
        for _ in range(5):
            submit(project, resources={"device": "cuda"}, priority="high")
            submit(project)
    choose = queue.choose

    def choose_slowly(*given: Any, **options: Any) -> Any:
        found = choose(*given, **options)
        time.sleep(0.02)  # long enough for another to look as well
        return found

    monkeypatch.setattr(queue, "choose", choose_slowly)

    def work(number: int) -> list[tuple[Lease, int]]:
        """Take up what is to be had, sometimes end one, and count the project's jobs at work after each claim."""
        done: list[tuple[Lease, int]] = []
        for _ in range(8):
            with database.write() as session:
                # Two kinds of machine see two different jobs first, so the rows alone keep nobody apart.
                worker, machine = f"wrk_{number}", GPU if number < 4 else PLAIN
                lease = queue.claim_next(session, worker, machine, running_limit=limit, lease_seconds=60)
                if lease is None:
                    continue
                project = session.scalars(select(JobRow.project_id).where(JobRow.id == lease.job_id)).one()
                running = select(JobRow.id).where(JobRow.project_id == project, JobRow.status == "running")
                done.append((lease, len(session.scalars(running).all())))
            if number % 2:
                with database.write() as session:
                    lifecycle.fail(session, lease, JobError(code="x", detail="x", hint="x"))
        return done

    with ThreadPoolExecutor(8) as pool:
        found = [item for done in pool.map(work, range(8)) for item in done]
    assert max(running for _, running in found) <= limit
    assert max(Counter(lease.job_id for lease, _ in found).values()) == 1
    while claim(database, machine=GPU, limit=limit) is not None:
        pass
    with database.read() as session:
        left = Counter((row.project_id, row.status) for row in session.scalars(select(JobRow)))
    # Nothing lies idle: what still waits, waits for the limit alone.
    for (project, status), _ in left.items():
        assert status != "queued" or left[project, "running"] == limit


def test_submissions_at_once_keep_the_limit_of_those_who_wait(database: Database, submit: Submit) -> None:
    submit("a")
    with database.read() as session:
        project = keys.project_named(session, "a").id

    def try_one(_: int) -> bool:
        try:
            with database.write() as session:
                queue.make_room(session, project, limits=Limits(max_queued_jobs=5))
                data = datasets.by_builtin(session, project, "digits")
                assert data is not None
                jobs.create(session, project, spec=spec(), resolved=spec(), dataset_id=data.id)
        except QueueFull:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        taken = sum(pool.map(try_one, range(16)))
    assert taken == 4
    claim(database)
    assert try_one(0)
    submit("b")
    assert not try_one(0)


def test_positions_move_as_jobs_are_taken_up_and_cancelled(database: Database, submit: Submit) -> None:
    alive(database)
    first, second, third = (submit("a") for _ in range(3))
    assert line(database) == {first: (1, "starting"), second: (2, "workers_busy"), third: (3, "workers_busy")}
    assert claimed(database) == first
    assert line(database) == {second: (1, "workers_busy"), third: (2, "workers_busy")}
    assert line(database, limit=1) == {second: (1, "project_limit"), third: (2, "project_limit")}
    with database.write() as session:
        verbs.request_cancel(session, second)
    assert line(database) == {third: (1, "workers_busy")}


def test_a_worker_not_heard_of_and_one_of_an_older_release_are_no_hope_for_a_job_that_needs_much(
    database: Database, submit: Submit
) -> None:
    job = submit("a", resources={"memory_gb": 1.0})
    assert line(database) == {job: (1, "no_worker")}
    alive(database)
    assert line(database) == {job: (1, "starting")}
    with database.write() as session:
        session.execute(update(WorkerRow).values(memory_bytes=None, cuda=None, cores=None))
    assert line(database) == {job: (1, "no_fitting_worker")}
    with database.write() as session:
        session.execute(update(WorkerRow).values(seen_at=db_now(session) - timedelta(seconds=61)))
    assert line(database) == {job: (1, "no_worker")}
