"""A service whose files are in an object store: results, kept outputs and checkpoints, also when it goes away."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from sqlalchemy import select

from core.settings import Settings
from core.storage import Storage, make_storage
from models import checkpoints, results, stored_files, verbs
from models.model import ModelRow
from models.teacher_output import TeacherOutputRow
from tests.object_store import ObjectStore
from tests.worker import service as parts
from tests.worker.service import Service, eventually, spec

LONG = {"epochs": 150, "teacher_epochs": 2}


@pytest.fixture
def database_kind() -> str:
    """Files are the same whichever database."""
    return "sqlite"


@pytest.fixture
def storage_kind() -> str:
    return "s3"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Of a service that writes checkpoints often, and has the time to see a store come back."""
    return settings.model_copy(update={"checkpoint_seconds": 0.3, "lease_seconds": 6.0})


def storage(service: Service) -> Storage:
    return make_storage(service.settings)


def files(service: Service) -> set[str]:
    return {entry.key for entry in storage(service).entries()}


def named(service: Service) -> set[str]:
    with service.database.read() as session:
        return {file.key for file in stored_files.named(session)}


def succeed(service: Service, job_id: str) -> dict[str, str]:
    """Digests of what the job left, once it has succeeded and each file of it is whole."""
    job = service.wait(job_id, "succeeded", "failed")
    assert (job.status, job.error) == ("succeeded", None)
    with service.database.read() as session:
        rows = results.artifacts(session, job_id)
    for row in rows:
        assert sum(len(chunk) for chunk in storage(service).read(row.storage_key)) == row.bytes
    return {row.name: row.sha256 for row in rows if row.name.endswith(".safetensors")}


def damage(service: Service, key: str, scratch: Path) -> None:
    content = bytearray(b"".join(storage(service).read(key)))
    content[len(content) // 2] ^= 1
    scratch.write_bytes(content)
    storage(service).put(key, scratch)


def forget_this_machine(service: Service) -> None:
    """What the next worker knows is in the store. The folder stays: a reconciler leaves its sign of life there."""
    for path in service.settings.work_dir.iterdir():
        if path.is_dir():
            shutil.rmtree(path)


def kill(worker: "subprocess.Popen[bytes]") -> None:
    started = parts.family(worker.pid)  # asked before: nobody knows the children of a process that is gone
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    eventually(lambda: all(map(parts.gone, started)), "all of it ends")


def test_outputs_of_one_job_serve_the_next_on_another_machine_and_damaged_ones_are_made_again(
    service: Service, tmp_path: Path
) -> None:
    worker = service.start_worker()
    first = service.submit(spec())
    before = succeed(service, first)
    kill(worker)
    forget_this_machine(service)
    worker = service.start_worker()
    second = service.submit(spec())
    assert succeed(service, second) == before
    assert any("its outputs are used again" in message for message in service.messages(second))
    kill(worker)
    forget_this_machine(service)
    with service.database.read() as session:
        kept = session.scalars(select(TeacherOutputRow.storage_key)).all()
    for key in kept:
        assert key is not None
        damage(service, key, tmp_path / "scratch")
    service.start_worker()
    third = service.submit(spec())
    assert succeed(service, third) == before
    assert any("damaged or gone" in message for message in service.messages(third))
    eventually(lambda: files(service) == named(service), "nothing is left of the damaged file")


def test_a_damaged_copy_of_an_input_is_fetched_anew_and_a_damaged_object_refused(
    service: Service, tmp_path: Path
) -> None:
    service.start_worker()
    first = service.submit(spec())
    before = succeed(service, first)
    teacher = service.job(first).student_model_id
    succeed(service, service.submit(spec(teacher={"model": teacher})))
    for kind in ("datasets", "models"):
        (copy,) = (service.settings.work_dir / "cache" / kind).iterdir()
        copy.write_bytes(bytes(copy.stat().st_size))
    assert succeed(service, service.submit(spec())) == before
    succeed(service, service.submit(spec(teacher={"model": teacher})))
    with service.database.read() as session:
        model = session.get(ModelRow, teacher)
        assert model is not None
    damage(service, model.weights_key, tmp_path / "scratch")
    shutil.rmtree(service.settings.work_dir / "cache" / "models")
    job = service.wait(service.submit(spec(teacher={"model": teacher})), "succeeded", "failed")
    assert job.error is not None
    assert (job.error["code"], "bytes have changed" in job.error["detail"]) == ("teacher_unusable", True)


def test_another_machine_goes_on_from_a_checkpoint_in_the_store_and_past_a_damaged_one(
    service: Service, tmp_path: Path
) -> None:
    worker = service.start_worker()
    service.start_reconciler()
    job_id = service.submit(spec(**LONG))
    service.wait_training(job_id)

    def recorded() -> list[checkpoints.CheckpointRow]:
        with service.database.read() as session:
            return checkpoints.newest(session, job_id)

    eventually(lambda: len([row for row in recorded() if row.phase == "distilling"]) == 2, "two are kept")
    kill(worker)
    eventually(lambda: service.job(job_id).status == "queued", "the lease runs out")
    forget_this_machine(service)
    newest = recorded()[0]
    damage(service, newest.storage_key, tmp_path / "scratch")
    service.start_worker()
    found = succeed(service, job_id)
    said = service.messages(job_id)
    assert any(message.startswith(f"Checkpoint {newest.number} is damaged or gone") for message in said)
    assert any(message.startswith("Going on from checkpoint") for message in said)
    assert found == succeed(service, service.submit(spec(**LONG)))
    eventually(lambda: files(service) == named(service), "checkpoints and left-overs are gone from the store")
    assert not any("checkpoints" in key for key in files(service))


def test_a_store_that_is_away_while_a_job_trains_costs_nothing(service: Service, s3: ObjectStore) -> None:
    service.start_worker()
    service.start_reconciler()
    job_id = service.submit(spec(epochs=9000))
    service.wait_training(job_id)
    s3.stop()
    try:
        refused = "A checkpoint could not be stored. The job goes on, and it is tried again."
        eventually(lambda: refused in service.messages(job_id), "it is said")
        assert service.job(job_id).attempt == 1
    finally:
        s3.start()
    eventually(lambda: "Checkpoints are stored again." in service.messages(job_id), "it is stored again")
    with service.database.write() as session:
        verbs.request_finish(session, job_id)
    succeed(service, job_id)
    assert service.job(job_id).lost_attempts == 0


def test_results_wait_for_a_store_that_is_away_when_they_are_ready(service: Service, s3: ObjectStore) -> None:
    service.start_worker()
    service.start_reconciler()
    job_id = service.submit(spec(epochs=200))
    service.wait_training(job_id)
    s3.stop()
    try:
        waiting = "The results cannot be stored now. The job keeps its place, and it is tried again."
        eventually(lambda: waiting in service.messages(job_id), "it is said")
    finally:
        s3.start()
    succeed(service, job_id)
    assert (service.job(job_id).attempt, service.job(job_id).lost_attempts) == (1, 0)
    assert service.messages(job_id).count(waiting) == 1


def test_a_job_taken_up_while_the_store_is_away_waits_for_its_inputs(service: Service, s3: ObjectStore) -> None:
    service.start_worker()
    service.start_reconciler()
    students = [service.submit(spec(epochs=epochs)) for epochs in (1, 2)]
    for job_id in students:
        succeed(service, job_id)
    known, other = (service.job(job_id).student_model_id for job_id in students)
    succeed(service, service.submit(spec(teacher={"model": known})))
    members = [{"model": known}, {"model": other}]  # the first is here already
    s3.stop()
    try:
        job_id = service.submit(spec(teacher={"ensemble": {"members": members}}))
        waiting = "What the job needs cannot be fetched now. The job keeps its place, and it is tried again."
        eventually(lambda: waiting in service.messages(job_id), "it is said")
    finally:
        s3.start()
    succeed(service, job_id)
    assert (service.job(job_id).attempt, service.job(job_id).lost_attempts) == (1, 0)
    assert service.messages(job_id).count(waiting) == 1


def test_a_job_that_waits_for_its_inputs_can_be_cancelled(service: Service, s3: ObjectStore) -> None:
    job_id = service.submit(spec())
    s3.stop()
    try:
        service.start_worker()
        eventually(lambda: any("cannot be fetched now" in said for said in service.messages(job_id)), "it is said")
        with service.database.write() as session:
            verbs.request_cancel(session, job_id)
        assert service.wait(job_id, "cancelled", "failed").status == "cancelled"
    finally:
        s3.start()
