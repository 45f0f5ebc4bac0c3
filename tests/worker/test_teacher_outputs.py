"""Teacher outputs between jobs, with real workers: made once, found again, taken over, kept within limits."""

import os
import signal
from pathlib import Path
from typing import Any

from sqlalchemy import select

from models.model import ModelRow
from models.teacher_output import TeacherOutputRow
from tests.worker import service as parts
from tests.worker.service import ANY_DATABASE, Service, eventually, spec
from tests.worker.test_faults import weights

FOUND = "its outputs are used again"


def slow(teacher: str, *, views: int = 120, **changes: Any) -> dict[str, Any]:
    """A job that labels for seconds: many views, and a teacher of a million multiply-adds."""
    augmented = {"epochs": 1, "batch_size": 512, "augmentation": {"crop_padding": 1}}
    return spec(teacher={"model": teacher}, training=augmented, teacher_outputs={"views": views}, **changes)


def trained(service: Service) -> str:
    """A model that can teach."""
    job = service.wait(service.submit(spec(student={"name": "mlp", "hidden": [1000, 1000]})), "succeeded", "failed")
    assert job.student_model_id is not None, job.error
    return job.student_model_id


def every(service: Service) -> list[TeacherOutputRow]:
    with service.database.read() as session:
        return list(session.scalars(select(TeacherOutputRow).order_by(TeacherOutputRow.id)))


def rows(service: Service) -> list[TeacherOutputRow]:
    """Of training rows."""
    return [row for row in every(service) if row.part == "train"]


def files(service: Service) -> list[Path]:
    """Everything that is kept or half made, wherever it lies."""
    folders = [service.settings.data_dir / name for name in ("storage", "work/cache")]
    found = [path for folder in folders for path in parts.each(folder)]
    return [path for path in found if "teacher-outputs" in str(path)]


def stored(service: Service, row: TeacherOutputRow) -> Path:
    assert row.storage_key is not None
    return service.settings.data_dir / "storage" / row.storage_key


def said(service: Service, job_id: str, what: str) -> bool:
    return any(what in message for message in service.messages(job_id))


def labelling(service: Service, job_id: str) -> bool:
    """True once some of it is on disk."""
    row = service.job(job_id)
    assert row.finished_at is None, (row.status, row.error)
    return row.phase == "labelling" and (row.progress or {}).get("step", 0) > 0


def test_a_second_job_on_the_same_data_and_teacher_labels_nothing(service: Service) -> None:
    service.start_worker()
    teacher = trained(service)
    first, second = (
        service.wait(service.submit(spec(teacher={"model": teacher}, student=student)), "succeeded", "failed")
        for student in ({"name": "mlp", "hidden": [8]}, {"name": "cnn", "channels": [4, 4]})
    )
    assert first.error is second.error is None
    assert not said(service, first.id, FOUND)
    assert said(service, second.id, FOUND)
    row = rows(service)[-1]
    assert (row.status, row.job_id, row.hits, row.teacher_model_id) == ("ready", first.id, 1, teacher)
    assert stored(service, row) in files(service)
    # And what the job that trained the teacher kept, and what it says of the rows held out.
    assert [row.part for row in every(service)] == ["train", "held_out", "train"]
    assert len(files(service)) == 3
    assert abs(stored(service, row).stat().st_size - row.bytes) < 4096


def test_two_jobs_at_once_label_once(service: Service) -> None:
    service.start_worker()
    service.start_worker()
    teacher = trained(service)
    jobs = [service.submit(slow(teacher)) for _ in range(2)]
    ended = [service.wait(job_id, "succeeded", "failed") for job_id in jobs]
    assert [job.error for job in ended] == [None, None]
    row = rows(service)[-1]
    assert (row.status, row.views, row.hits) == ("ready", 120, 1)
    assert len(rows(service)) == 2
    assert [said(service, job_id, FOUND) for job_id in jobs].count(True) == 1
    waited = next(job_id for job_id in jobs if job_id != row.job_id)
    assert said(service, waited, "Another job is working out the same teacher outputs")
    # Made or read: the same student.
    assert weights(service, jobs[0]) == weights(service, jobs[1])


def test_labelling_goes_on_where_a_killed_trainer_stopped(service: Service) -> None:
    worker = service.start_worker()
    service.start_reconciler()
    teacher = trained(service)
    job_id = service.submit(slow(teacher))
    eventually(lambda: labelling(service, job_id), "it labels")
    os.kill(parts.trainer(worker), signal.SIGKILL)
    job = service.wait(job_id, "succeeded", "failed")
    assert (job.error, job.attempt) == (None, 2)
    assert said(service, job_id, "Labelling goes on after")
    undisturbed = service.wait(service.submit(slow(teacher, labels={"again": "yes"})), "succeeded", "failed")
    assert said(service, undisturbed.id, FOUND)
    assert weights(service, job_id) == weights(service, undisturbed.id)
    assert len(files(service)) == len(every(service)) == 3


def test_a_job_that_waits_takes_over_when_the_worker_that_labels_dies(service: Service) -> None:
    doomed = service.start_worker()
    service.start_reconciler()
    teacher = trained(service)
    first = service.submit(slow(teacher, views=400))
    eventually(lambda: labelling(service, first), "the first labels")
    service.start_worker()
    second = service.submit(slow(teacher, views=400))
    eventually(lambda: said(service, second, "Another job is working out"), "the second waits")
    for member in [*parts.family(doomed.pid), doomed.pid]:
        os.kill(member, signal.SIGKILL)
    job = service.wait(second, "succeeded", "failed")
    assert job.error is None
    assert said(service, second, "Labelling goes on after")
    assert service.wait(first, "succeeded", "failed").error is None
    assert said(service, first, FOUND)
    row = rows(service)[-1]
    assert (row.status, row.job_id, row.hits) == ("ready", second, 1)
    assert weights(service, first) == weights(service, second)


def test_a_damaged_or_missing_file_is_made_again(service: Service) -> None:
    service.start_worker()
    teacher = trained(service)

    def job() -> str:
        ended = service.wait(service.submit(spec(teacher={"model": teacher})), "succeeded", "failed")
        assert ended.error is None
        return ended.id

    first = job()
    path = stored(service, rows(service)[-1])
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    second = job()
    assert said(service, second, "damaged or gone")
    assert not path.exists()
    assert rows(service)[-1].job_id == second
    stored(service, rows(service)[-1]).unlink()
    third = job()
    assert said(service, third, "damaged or gone")
    fourth = job()
    assert said(service, fourth, FOUND)
    assert weights(service, first) == weights(service, second) == weights(service, third) == weights(service, fourth)
    assert len(files(service)) == len(every(service)) == 3


def test_what_is_used_least_recently_makes_room_and_its_file_goes(service: Service) -> None:
    # A view of the training rows takes 50 kB, what is said of the rows held out 22 kB: two views fit beside it.
    service.start_worker(STILLHOUSE_LIMITS__MAX_OUTPUTS_BYTES="130000")
    teacher = trained(service)
    keys = set()
    for seed in range(3):
        training = {"epochs": 1, "batch_size": 512, "seed": seed, "augmentation": {"crop_padding": 1}}
        body = spec(teacher={"model": teacher}, training=training, teacher_outputs={"views": 1})
        assert service.wait(service.submit(body), "succeeded", "failed").error is None
        keys.add(rows(service)[-1].key)
        assert sum(row.bytes for row in every(service)) <= 130_000
    assert len(keys) == 3
    assert len(rows(service)) == 2
    assert len(every(service)) == len(files(service)) == 3


@ANY_DATABASE
def test_a_storage_that_refuses_costs_nothing_but_the_next_labelling(service: Service) -> None:
    service.start_worker()
    teacher = trained(service)
    before = len(rows(service))
    [row] = rows(service)
    blocked = stored(service, row).parents[1]
    blocked.rename(blocked.with_name("moved"))
    blocked.write_bytes(b"in the way")  # a file where a folder must be
    job = service.wait(service.submit(spec(teacher={"model": teacher})), "succeeded", "failed")
    assert job.error is None
    assert len(rows(service)) == before
    blocked.unlink()
    again = service.wait(service.submit(spec(teacher={"model": teacher})), "succeeded", "failed")
    assert again.error is None
    assert len(rows(service)) == before + 1
    assert weights(service, job.id) == weights(service, again.id)


@ANY_DATABASE
def test_data_that_has_changed_since_it_was_uploaded_is_refused(service: Service) -> None:
    service.start_worker()
    service.wait(service.submit(spec()), "succeeded", "failed")
    path = service.settings.data_dir / "storage" / f"projects/{service.project}/datasets/digits.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    job = service.wait(service.submit(spec()), "succeeded", "failed")
    assert job.error is not None
    assert (job.error["code"], "bytes have changed" in job.error["detail"]) == ("dataset_unusable", True)


def test_a_teacher_whose_file_has_changed_since_it_was_uploaded_is_refused(service: Service) -> None:
    service.start_worker()
    teacher = trained(service)
    with service.database.read() as session:
        row = session.get(ModelRow, teacher)
        assert row is not None
        path = service.settings.data_dir / "storage" / row.weights_key
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    job = service.wait(service.submit(spec(teacher={"model": teacher})), "succeeded", "failed")
    assert job.error is not None
    assert (job.error["code"], "bytes have changed" in job.error["detail"]) == ("teacher_unusable", True)
