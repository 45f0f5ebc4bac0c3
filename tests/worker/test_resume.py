"""A job goes on from its checkpoint, whoever takes it over, and ends with the bits of one nobody disturbed."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import create_engine, delete, func, select, text

from core.settings import Settings
from models import checkpoints, events, verbs
from models.checkpoint import CheckpointRow
from models.metric import MetricRow
from stillhouse.spec.states import JobStatus
from tests.worker import service as parts
from tests.worker.service import Service, eventually, gone, spec
from tests.worker.test_faults import assert_nothing_left_behind, assert_one_whole_result, weights

LONG = {"epochs": 150, "teacher_epochs": 2}

Outcome = tuple[dict[str, str], dict[str, list[tuple[int, float]]]]
"""Digests of a job's models, and its series."""
_UNDISTURBED: dict[str, Outcome] = {}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Of a service that writes checkpoints often."""
    return settings.model_copy(update={"checkpoint_seconds": 0.3, "lease_seconds": 6.0})


def recorded(service: Service, job_id: str) -> list[CheckpointRow]:
    with service.database.read() as session:
        return checkpoints.newest(session, job_id)


def wait_checkpoint(service: Service, job_id: str, *, phase: str = "distilling", attempt: int = 1) -> CheckpointRow:
    """A recorded checkpoint of that phase and attempt."""

    def found() -> CheckpointRow | None:
        assert service.job(job_id).finished_at is None
        return next((c for c in recorded(service, job_id) if c.phase == phase and c.attempt == attempt), None)

    try:
        row: CheckpointRow = eventually(found, "a checkpoint is recorded")
    except AssertionError as error:
        raise AssertionError(f"{error}\n{service.messages(job_id)}\n{service.logs()}") from None
    return row


def lose(worker: "subprocess.Popen[bytes]") -> None:
    """The worker dies, and with it all it started."""
    family = parts.family(worker.pid)
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    eventually(lambda: all(gone(pid) for pid in family), "all of it ends")


def went_on(service: Service, job_id: str) -> bool:
    return any(message.startswith("Going on from checkpoint") for message in service.messages(job_id))


def ask(service: Service, job_id: str, verb: str) -> JobStatus:
    with service.database.write() as session:
        status = getattr(verbs, f"request_{verb}")(session, job_id)
    assert isinstance(status, JobStatus)
    return status


def series(service: Service, job_id: str) -> dict[str, list[tuple[int, float]]]:
    with service.database.read() as session:
        found = events.series(session, job_id, names=(), first=None, last=None)
    return {name: points for name, points in found.items() if not name.endswith("rows_per_second")}


def outcome(service: Service, job_id: str) -> Outcome:
    return weights(service, job_id), series(service, job_id)


def undisturbed(service: Service, body: dict[str, object]) -> Outcome:
    """What a job of this spec ends with in one piece. The same bits for every test, so each spec is run once."""
    if (spec_ := json.dumps(body)) not in _UNDISTURBED:
        job = service.wait(service.submit(body), "succeeded", "failed")
        assert (job.error, job.attempt) == (None, 1)
        _UNDISTURBED[spec_] = outcome(service, job.id)
    return _UNDISTURBED[spec_]


def assert_as_undisturbed(service: Service, job_id: str, body: dict[str, object]) -> None:
    """The job has the weights and the series of a job of the same spec that ran in one piece."""
    job = service.wait(job_id, "succeeded", "failed")
    assert (job.status, job.error) == ("succeeded", None)
    assert outcome(service, job_id) == undisturbed(service, body)
    with service.database.read() as session:
        rows = select(func.count()).select_from(MetricRow).where(MetricRow.job_id == job_id)
        steps = select(MetricRow.name, MetricRow.step).where(MetricRow.job_id == job_id).distinct()
        distinct = session.execute(select(func.count()).select_from(steps.subquery())).scalar_one()
        assert session.execute(rows).scalar_one() == distinct  # each step once
    assert_one_whole_result(service, job_id)
    assert_nothing_left_behind(service)
    eventually(lambda: not recorded(service, job_id), "its checkpoints go")
    eventually(lambda: not list((service.settings.work_dir / "checkpoints").iterdir()), "and those of this machine")


@pytest.mark.parametrize("victim", ["trainer", "supervisor", "worker"])
def test_a_killed_job_goes_on_bit_for_bit(service: Service, victim: str) -> None:
    worker = service.start_worker()
    service.start_reconciler()
    body = spec(**LONG)
    job_id = service.submit(body)
    wait_checkpoint(service, job_id)
    pid = {"trainer": parts.trainer, "supervisor": parts.pool_process, "worker": lambda w: w.pid}[victim](worker)
    os.kill(pid, signal.SIGKILL)
    if victim == "worker":
        worker.wait()
        service.start_worker()
    job = service.wait(job_id, "succeeded", "failed")
    assert job.attempt == 2
    assert went_on(service, job_id)
    assert_as_undisturbed(service, job_id, body)


def test_a_job_killed_while_its_teacher_trains_goes_on_there(service: Service) -> None:
    worker = service.start_worker()
    service.start_reconciler()
    body = spec(epochs=2, teacher_epochs=150)
    job_id = service.submit(body)
    wait_checkpoint(service, job_id, phase="training_teacher")
    os.kill(parts.trainer(worker), signal.SIGKILL)
    service.wait(job_id, "succeeded", "failed")
    assert went_on(service, job_id)
    assert_as_undisturbed(service, job_id, body)


def test_another_machine_goes_on_from_the_storage(service: Service) -> None:
    worker = service.start_worker()
    service.start_reconciler()
    body = spec(**LONG)
    job_id = service.submit(body)
    wait_checkpoint(service, job_id)
    lose(worker)
    # What the first machine knew is not there.
    shutil.rmtree(service.settings.work_dir / "checkpoints")
    service.start_worker()
    service.wait(job_id, "succeeded", "failed")
    assert went_on(service, job_id)
    assert_as_undisturbed(service, job_id, body)


def test_a_damaged_checkpoint_costs_an_interval_and_not_the_job(service: Service) -> None:
    worker = service.start_worker()
    service.start_reconciler()
    body = spec(**LONG)
    job_id = service.submit(body)
    wait_checkpoint(service, job_id)
    eventually(lambda: len(recorded(service, job_id)) == 2, "two are kept")
    lose(worker)
    eventually(lambda: service.job(job_id).status == "queued", "the lease runs out")
    shutil.rmtree(service.settings.work_dir / "checkpoints")
    newest = recorded(service, job_id)[0]
    stored = service.settings.data_dir / "storage" / newest.storage_key
    content = bytearray(stored.read_bytes())
    content[len(content) // 2] ^= 1
    stored.write_bytes(content)
    service.start_worker()
    service.wait(job_id, "succeeded", "failed")
    said = service.messages(job_id)
    assert any(message.startswith(f"Checkpoint {newest.number} is damaged or gone") for message in said)
    assert went_on(service, job_id)
    assert_as_undisturbed(service, job_id, body)


def test_a_job_is_paused_and_resumed_bit_for_bit(service: Service) -> None:
    worker = service.start_worker()
    body = spec(**LONG)
    job_id = service.submit(body)
    service.wait_training(job_id)
    pid = parts.trainer(worker)
    assert ask(service, job_id, "pause") is JobStatus.PAUSING
    job = service.wait(job_id, "paused", "succeeded", "failed")
    assert (job.status, job.lost_attempts) == ("paused", 0)
    assert gone(pid)  # the device is free
    assert recorded(service, job_id)[0].phase == "distilling"
    # The worker takes other jobs meanwhile.
    assert service.wait(service.submit(spec()), "succeeded", "failed").status == "succeeded"
    assert ask(service, job_id, "resume") is JobStatus.QUEUED
    service.ring(job_id)
    job = service.wait(job_id, "succeeded", "failed")
    assert (job.attempt, job.lost_attempts) == (2, 0)
    assert went_on(service, job_id)
    assert_as_undisturbed(service, job_id, body)


def test_a_paused_job_can_be_cancelled_and_leaves_nothing(service: Service) -> None:
    service.start_worker()
    job_id = service.submit(spec(epochs=9000))
    service.wait_training(job_id)
    ask(service, job_id, "pause")
    service.wait(job_id, "paused")
    assert ask(service, job_id, "cancel") is JobStatus.CANCELLED
    # What it left is swept up by whoever works next.
    service.start_reconciler()
    eventually(lambda: not recorded(service, job_id), "its checkpoints go")
    kept = service.settings.data_dir / "storage" / "projects" / service.project / "jobs" / job_id
    assert not list(parts.each(kept))


@pytest.mark.parametrize("wish", ["pause", "cancel"])
def test_what_is_asked_while_the_worker_is_dead_is_done(service: Service, wish: str) -> None:
    worker = service.start_worker()
    job_id = service.submit(spec(epochs=9000))
    wait_checkpoint(service, job_id)
    lose(worker)
    ask(service, job_id, wish)
    service.start_reconciler()
    job = service.wait(job_id, {"pause": "paused", "cancel": "cancelled"}[wish])
    assert job.worker_id is None or wish == "cancel"


def test_a_pause_before_anything_is_trained_is_a_pause(service: Service) -> None:
    service.start_worker()
    job_id = service.submit(spec(epochs=200))
    eventually(lambda: service.job(job_id).status == "running", "a worker takes it")
    ask(service, job_id, "pause")
    assert service.wait(job_id, "paused", "succeeded", "failed").status == "paused"
    ask(service, job_id, "resume")
    service.ring(job_id)
    assert service.wait(job_id, "succeeded", "failed").status == "succeeded"


def test_a_job_is_finished_early_with_its_best(service: Service) -> None:
    service.start_worker()
    job_id = service.submit(spec(epochs=9000))
    service.wait_training(job_id)
    ask(service, job_id, "finish")
    job = service.wait(job_id, "succeeded", "failed")
    assert (job.status, job.error, job.attempt) == ("succeeded", None, 1)
    assert job.report is not None
    assert any("asked to finish" in warning for warning in job.report["warnings"])
    assert max(step for step, _ in series(service, job_id)["distilling/loss"]) < 9000 * 39
    assert_one_whole_result(service, job_id)


def test_a_paused_job_is_finished_from_its_checkpoint(service: Service) -> None:
    service.start_worker()
    job_id = service.submit(spec(epochs=9000))
    service.wait_training(job_id)
    ask(service, job_id, "pause")
    service.wait(job_id, "paused")
    assert ask(service, job_id, "finish") is JobStatus.QUEUED
    service.ring(job_id)
    job = service.wait(job_id, "succeeded", "failed")
    assert (job.status, job.attempt) == ("succeeded", 2)
    assert went_on(service, job_id)


def test_a_worker_told_to_stop_writes_a_checkpoint_and_hands_the_job_back(service: Service) -> None:
    rarely = service.settings.model_copy(update={"checkpoint_seconds": 3600.0})
    service.settings = rarely
    worker = service.start_worker()
    body = spec(**LONG)
    job_id = service.submit(body)
    service.wait_training(job_id)
    worker.send_signal(signal.SIGTERM)
    job = service.wait(job_id, "queued", "succeeded", "failed")
    assert (job.status, job.lost_attempts) == ("queued", 0)
    assert recorded(service, job_id)[0].phase == "distilling"
    worker.wait(timeout=parts.PATIENCE_SECONDS)
    assert_nothing_left_behind(service)
    service.start_worker()
    service.ring(job_id)
    assert service.wait(job_id, "succeeded", "failed").attempt == 2
    assert went_on(service, job_id)
    assert_as_undisturbed(service, job_id, body)


def test_a_pool_process_told_to_stop_hands_its_job_back_and_another_takes_its_place(service: Service) -> None:
    service.settings = service.settings.model_copy(update={"checkpoint_seconds": 3600.0})
    worker = service.start_worker()
    service.start_reconciler()
    body = spec(**LONG)
    job_id = service.submit(body)
    service.wait_training(job_id)
    first = parts.pool_process(worker)
    for pid in (first, parts.fork_server(worker), parts.trainer(worker)):
        os.kill(pid, signal.SIGTERM)
    job = service.wait(job_id, "succeeded", "failed")
    assert (job.status, job.attempt, job.lost_attempts) == ("succeeded", 2, 0)
    assert went_on(service, job_id)
    second = parts.pool_process(worker)
    assert second != first
    assert_as_undisturbed(service, job_id, body)
    # One that has nothing to do ends at once, and leaves no worker on record that is none.
    os.kill(second, signal.SIGTERM)
    eventually(lambda: gone(second), "it ends")
    eventually(lambda: parts.pool_process(worker) != second, "another takes its place")
    assert worker.poll() is None


def test_a_trainer_that_does_not_stop_in_time_is_stopped_all_the_same(service: Service) -> None:
    worker = service.start_worker(STILLHOUSE_STOP_SECONDS="0.5")
    job_id = service.submit(spec(epochs=9000))
    service.wait_training(job_id)
    pid = parts.trainer(worker)
    os.kill(pid, signal.SIGSTOP)
    ask(service, job_id, "pause")
    job = service.wait(job_id, "paused")
    assert gone(pid)
    assert job.lost_attempts == 0


def test_a_worker_told_to_stop_twice_while_its_trainer_is_deaf_hands_the_job_back_all_the_same(
    service: Service,
) -> None:
    worker = service.start_worker(STILLHOUSE_STOP_SECONDS="3")
    job_id = service.submit(spec(epochs=9000))
    service.wait_training(job_id)
    pid = parts.trainer(worker)
    os.kill(pid, signal.SIGSTOP)
    worker.send_signal(signal.SIGTERM)
    time.sleep(1)  # the second comes while the first is still waited for
    worker.send_signal(signal.SIGTERM)
    worker.wait(timeout=parts.PATIENCE_SECONDS)
    assert gone(pid)
    job = service.job(job_id)
    assert (job.status, job.lost_attempts, job.lease_until) == ("queued", 0, None)
    assert_nothing_left_behind(service)


def test_a_storage_that_refuses_does_not_end_the_job(service: Service) -> None:
    worker = service.start_worker()
    body = spec(**LONG)
    job_id = service.submit(body)
    wait_checkpoint(service, job_id)
    pid = parts.trainer(worker)
    with still(pid):  # it must not end before the storage refuses
        folder = service.settings.data_dir / "storage" / "projects" / service.project / "jobs" / job_id / "checkpoints"
        shutil.rmtree(folder)
        folder.write_bytes(b"in the way")
    refused = "A checkpoint could not be stored. The job goes on, and it is tried again."
    eventually(lambda: refused in service.messages(job_id), "it is said")
    os.kill(pid, signal.SIGSTOP)  # nor before it is killed
    folder.unlink()
    eventually(lambda: "Checkpoints are stored again." in service.messages(job_id), "it is said that it works again")
    assert service.messages(job_id).count(refused) == 1
    # What could not be stored in time is found on this machine.
    os.kill(parts.trainer(worker), signal.SIGKILL)
    service.start_reconciler()
    service.wait(job_id, "succeeded", "failed")
    assert_as_undisturbed(service, job_id, body)


def test_a_failed_job_that_is_retried_goes_on_from_its_checkpoint(service: Service) -> None:
    worker = service.start_worker(STILLHOUSE_ATTEMPT_LIMIT="1")
    body = spec(**LONG)
    job_id = service.submit(body)
    wait_checkpoint(service, job_id)
    os.kill(parts.trainer(worker), signal.SIGKILL)
    job = service.wait(job_id, "failed")
    assert job.error is not None
    assert "Attempt 1, distilling, step" in job.error["detail"]
    assert "SIGKILL" in job.error["detail"]
    assert recorded(service, job_id)
    assert ask(service, job_id, "retry") is JobStatus.QUEUED
    service.ring(job_id)
    service.wait(job_id, "succeeded", "failed")
    assert went_on(service, job_id)
    assert_as_undisturbed(service, job_id, body)


@contextmanager
def still(pid: int) -> Iterator[None]:
    """The process does nothing until the block ends."""
    os.kill(pid, signal.SIGSTOP)
    yield
    os.kill(pid, signal.SIGCONT)


@contextmanager
def database_away(service: Service) -> Iterator[None]:
    """Nobody can write to the record until the block ends."""
    if service.database.engine.dialect.name == "sqlite":
        with service.database.write() as session:
            session.execute(text("SELECT 1"))  # the lock is taken with the first statement
            yield
        return
    engine = create_engine(service.settings.resolved_database_url)
    with engine.begin() as connection:
        connection.execute(text("LOCK TABLE job IN ACCESS EXCLUSIVE MODE"))
        yield
    engine.dispose()


def test_a_database_that_is_away_for_longer_than_the_lease_costs_no_work(service: Service) -> None:
    worker = service.start_worker()
    body = spec(epochs=500, teacher_epochs=2)
    job_id = service.submit(body)
    wait_checkpoint(service, job_id)
    pid = parts.trainer(worker)
    with database_away(service):
        eventually(lambda: gone(pid), "the worker gives the job up, as it cannot hold it")
    service.start_reconciler()
    job = service.wait(job_id, "succeeded", "failed")
    assert job.attempt >= 2
    assert went_on(service, job_id)
    assert_as_undisturbed(service, job_id, body)


def test_what_was_never_recorded_is_found_on_the_same_machine(service: Service) -> None:
    worker = service.start_worker()
    service.start_reconciler()
    body = spec(**LONG)
    job_id = service.submit(body)
    wait_checkpoint(service, job_id)
    lose(worker)
    eventually(lambda: service.job(job_id).status == "queued", "the lease runs out")
    with service.database.write() as session:
        session.execute(delete(CheckpointRow))
    folder = service.settings.data_dir / "storage" / "projects" / service.project / "jobs" / job_id / "checkpoints"
    shutil.rmtree(folder)
    service.start_worker()
    service.wait(job_id, "succeeded", "failed")
    assert went_on(service, job_id)
    assert_as_undisturbed(service, job_id, body)


def test_a_finish_whose_student_was_lost_lets_the_job_train_to_its_end(service: Service) -> None:
    worker = service.start_worker()
    body = spec(epochs=300)
    job_id = service.submit(body)
    service.wait_training(job_id)
    lose(worker)
    assert ask(service, job_id, "finish") is JobStatus.RUNNING
    shutil.rmtree(service.settings.work_dir / "checkpoints")
    with service.database.write() as session:
        session.execute(delete(CheckpointRow))
    service.start_reconciler()
    service.start_worker()
    job = service.wait(job_id, "succeeded", "failed")
    assert job.wish is None
    assert any(message.startswith("Nothing is left of the student") for message in service.messages(job_id))
    assert max(step for step, _ in series(service, job_id)["distilling/loss"]) == 300 * 40
