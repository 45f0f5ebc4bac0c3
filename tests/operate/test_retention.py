"""What is deleted is really gone once its time in the trash is over, with what nobody else needs, and nothing else."""

from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from core.storage import Storage
from models import datasets, events, holds, jobs, stored_files, trash, usage
from models.base import Base, db_now
from models.dataset import DatasetRow
from models.idempotency import IdempotencyRow
from models.job import JobRow
from models.model import ModelRow
from models.teacher_output import TeacherOutputRow
from stillhouse.spec.errors import Unavailable
from tests.shelf import Shelf
from worker.retention import sweep


def test_a_purged_job_leaves_no_row_and_no_file_of_its_own(shelf: Shelf) -> None:
    before, files = shelf.counts(), shelf.files()
    kept = shelf.job()
    with_one, files_of_one = shelf.counts(), shelf.files()
    gone = shelf.job()
    assert set(shelf.counts().items()) != set(with_one.items())
    dataset, student = shelf.read(JobRow, gone).dataset_id, shelf.student(gone)
    for table, id in ((JobRow, gone), (DatasetRow, dataset), (ModelRow, student)):
        shelf.delete(table, id)
    assert shelf.sweep() == 3
    assert shelf.counts() == with_one
    assert shelf.files() == files_of_one == shelf.named()
    assert shelf.read(JobRow, kept).report is not None
    assert shelf.sweep() == 0
    assert before["job"] == 0
    assert files == set()


def test_what_is_not_yet_due_or_was_restored_stays(shelf: Shelf) -> None:
    job_id = shelf.job()
    everything = shelf.files()
    shelf.delete(JobRow, job_id, days=1)
    assert shelf.sweep() == 0
    shelf.delete(ModelRow, shelf.student(job_id))
    with shelf.database.write() as session:
        row = trash.locked(session, ModelRow, shelf.house.project, shelf.student(job_id))
        assert row is not None
        trash.take_out(session, row)
    assert shelf.sweep() == 0
    assert shelf.files() == everything


def test_a_model_outlives_its_job_with_its_file(shelf: Shelf) -> None:
    job_id = shelf.job()
    student = shelf.student(job_id)
    weights = shelf.read(ModelRow, student).weights_key
    shelf.delete(JobRow, job_id)
    assert shelf.sweep() == 1
    assert weights in shelf.files()
    row = shelf.read(ModelRow, student)
    assert (row.job_id, row.former_job_id) == (None, job_id)
    shelf.delete(ModelRow, student)
    assert shelf.sweep() == 1
    assert weights not in shelf.files()


def test_a_job_outlives_its_model_with_its_files_and_its_report(shelf: Shelf) -> None:
    job_id = shelf.job()
    files = shelf.files()
    shelf.delete(ModelRow, shelf.student(job_id))
    assert shelf.sweep() == 1
    assert shelf.files() == files
    assert shelf.read(JobRow, job_id).report["models"]
    shelf.delete(JobRow, job_id)
    assert shelf.sweep() == 1
    assert not [name for name in shelf.files() if "/jobs/" in name]


def test_a_dataset_goes_with_its_outputs_and_its_jobs_keep_their_reports(shelf: Shelf) -> None:
    job_id = shelf.job()
    dataset_id = shelf.read(JobRow, job_id).dataset_id
    with shelf.database.read() as session:
        before = usage.stored_bytes(session, shelf.house.project)
        outputs = session.scalars(select(TeacherOutputRow.bytes)).all()
        freed = session.get_one(DatasetRow, dataset_id).bytes + sum(outputs)
    shelf.delete(DatasetRow, dataset_id)
    with shelf.database.read() as session:
        assert usage.stored_bytes(session, shelf.house.project) == before  # the trash counts
    assert shelf.sweep() == 1
    with shelf.database.read() as session:
        assert usage.stored_bytes(session, shelf.house.project) == before - freed
    assert not [name for name in shelf.files() if "/datasets/" in name or "teacher-outputs" in name]
    assert shelf.counts()["teacher_output"] == shelf.counts()["teacher_output_use"] == 0
    with shelf.database.read() as session:
        assert datasets.get(session, shelf.house.project, dataset_id) is None
        assert datasets.page(session, shelf.house.project, before=None, limit=9, deleted=True) == []
    assert shelf.read(JobRow, job_id).report is not None
    # What stands for it goes with the last job that names it, and is not looked at before.
    assert shelf.sweep() == 0
    shelf.delete(JobRow, job_id)
    assert shelf.sweep() == 2
    assert shelf.counts()["dataset"] == 0


def test_kept_outputs_stay_as_long_as_one_of_their_jobs(shelf: Shelf) -> None:
    maker, reader = shelf.job(key="shared"), shelf.job(key="shared")
    [output] = [name for name in shelf.files() if "teacher-outputs" in name]
    shelf.delete(JobRow, maker)
    assert shelf.sweep() == 1
    assert output in shelf.files()
    with shelf.database.read() as session:
        assert session.scalars(select(TeacherOutputRow.job_id)).all() == [reader]
    shelf.delete(JobRow, reader)
    assert shelf.sweep() == 1
    assert output not in shelf.files()


def test_nothing_a_running_job_reads_is_purged(shelf: Shelf) -> None:
    maker = shelf.job(key="shared")
    dataset_id = shelf.read(JobRow, maker).dataset_id
    files = shelf.files()
    shelf.delete(DatasetRow, dataset_id)
    # By a way that asks nobody: what is taken up again, say, after its dataset went into the trash.
    running = shelf.hooked.submit(None)
    with shelf.database.write() as session:
        session.execute(update(JobRow).where(JobRow.id == running).values(dataset_id=dataset_id))
    lease = shelf.house.take_up(running)
    assert shelf.sweep() == 0
    assert shelf.files() == files
    assert shelf.read(DatasetRow, dataset_id).purging_at is None
    shelf.house.succeed(lease, {})
    assert shelf.sweep() == 1


class Dying:
    """A storage whose process dies at the n-th removal, before it or after it."""

    def __init__(self, storage: Storage, *, at: int, after: bool) -> None:
        self._storage, self._left, self._after = storage, at, after

    def delete(self, key: str) -> None:
        self._left -= 1
        if self._left != 0 or self._after:
            self._storage.delete(key)
        if self._left == 0:
            raise Unavailable("died")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("at", [1, 2, 3, 4])
def test_a_sweep_that_dies_anywhere_is_taken_up_and_no_row_is_ever_without_its_file(
    shelf: Shelf, at: int, after: bool
) -> None:
    shelf.job()
    gone, other = shelf.files(), shelf.counts()
    job_id = shelf.job()
    dataset, student = shelf.read(JobRow, job_id).dataset_id, shelf.student(job_id)
    for table, id in ((JobRow, job_id), (DatasetRow, dataset), (ModelRow, student)):
        shelf.delete(table, id)
    dying: Any = Dying(shelf.storage, at=at, after=after)
    with suppress(Unavailable):
        shelf.sweep(dying)
    assert shelf.named() <= shelf.files()
    # It cannot come back, as it may be whole no more.
    with shelf.database.write() as session:
        assert trash.locked(session, JobRow, shelf.house.project, job_id) is None
        assert jobs.get(session, shelf.house.project, job_id) is None
    shelf.sweep()
    assert shelf.counts() == other
    orphans = shelf.files() - gone
    assert gone <= shelf.files()
    # Teacher outputs, whose rows go first: a file that stayed is found by `fsck`.
    assert all("teacher-outputs" in name for name in orphans)
    assert len(orphans) <= 1


def test_a_sweep_that_dies_before_the_rows_go_is_taken_up(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = shelf.job()
    shelf.delete(JobRow, job_id)
    with monkeypatch.context() as patch:
        patch.setattr("models.purge.finish", _die)
        with pytest.raises(ZeroDivisionError):
            shelf.sweep()
    assert shelf.named() <= shelf.files()
    assert shelf.read(JobRow, job_id) is not None
    assert shelf.sweep() == 1
    assert shelf.read(JobRow, job_id) is None


def _die(*_: Any) -> None:
    raise ZeroDivisionError


def test_the_key_of_a_purged_job_makes_a_new_job(shelf: Shelf) -> None:
    job_id = shelf.job()
    shelf.delete(JobRow, job_id)
    shelf.sweep()
    assert shelf.read(IdempotencyRow, (shelf.house.project, f"key of {job_id}")) is None


def test_a_hold_keeps_everything_until_it_lapses(shelf: Shelf) -> None:
    shelf.delete(JobRow, shelf.job())
    with shelf.database.write() as session:
        hold = holds.take(session, "backup", seconds=60)
    assert shelf.sweep() == 0
    with shelf.database.write() as session:
        assert holds.renew(session, hold, seconds=-1)
        assert not holds.renew(session, hold, seconds=60)
    assert shelf.sweep() == 1


def test_nothing_expires_unless_it_is_asked_for(shelf: Shelf) -> None:
    job_id = shelf.job()
    _age(shelf, job_id, days=1000)
    sweep(shelf.database, shelf.storage, shelf.house.settings)
    assert shelf.read(JobRow, job_id).deleted_at is None


def test_old_things_go_into_the_trash_by_policy(shelf: Shelf) -> None:
    old, new, waiting = shelf.job(), shelf.job(), shelf.hooked.submit(None)
    for job_id in (old, waiting):
        _age(shelf, job_id, days=31)
    policy = {"retention_job_days": 30, "retention_dataset_days": 30, "retention_model_days": 30, "trash_days": 2}
    assert shelf.sweep(**policy) == 0
    for job_id, trashed in ((old, True), (new, False), (waiting, False)):
        job = shelf.read(JobRow, job_id)
        things = [job, shelf.read(DatasetRow, job.dataset_id)]
        things += [shelf.read(ModelRow, job.student_model_id)] if job.student_model_id else []
        for thing in things:
            assert (thing.deleted_at is not None) == trashed, thing
            assert not trashed or thing.purge_at - thing.deleted_at == timedelta(days=2)


def test_data_and_models_still_used_do_not_expire(shelf: Shelf) -> None:
    old = shelf.job()
    _age(shelf, old, days=31)
    student, later = shelf.student(old), shelf.hooked.submit(None)
    with shelf.database.write() as session:
        row = session.get_one(JobRow, later)
        row.dataset_id = session.get_one(JobRow, old).dataset_id
        row.resolved = row.resolved | {"teacher": {"model": student}}
    shelf.sweep(retention_dataset_days=30, retention_model_days=30)
    assert shelf.read(ModelRow, student).deleted_at is None
    assert shelf.read(DatasetRow, shelf.read(JobRow, old).dataset_id).deleted_at is None


def _age(shelf: Shelf, job_id: str, *, days: float) -> None:
    """Everything of a job is that old."""
    with shelf.database.write() as session:
        then = db_now(session) - timedelta(days=days)
        job = session.get_one(JobRow, job_id)
        job.created_at = then
        job.finished_at = None if job.finished_at is None else then
        session.execute(update(DatasetRow).where(DatasetRow.id == job.dataset_id).values(created_at=then))
        session.execute(update(ModelRow).where(ModelRow.job_id == job_id).values(created_at=then))


def test_a_job_with_many_series_goes_series_by_series(shelf: Shelf) -> None:
    job_id = shelf.job()
    lease = shelf.hooked.claim(shelf.hooked.submit(None))
    with shelf.database.write() as session:
        assert events.add_metrics(session, lease, [{"name": "stays", "step": 1, "value": 1.0}])
    shelf.delete(JobRow, job_id)
    shelf.sweep()
    assert shelf.counts()["job_metric"] == 1


def test_every_column_that_names_files_is_on_the_list() -> None:
    """A new one must be listed in `models.stored_files`, or purging, fsck and backups would not know of its files."""
    listed = {column.key.property.columns[0] for column in stored_files.KEY_COLUMNS}
    named = {column for table in Base.metadata.tables.values() for column in table.columns if _names_files(column)}
    assert named == listed


def _names_files(column: Any) -> bool:
    return str(column.name).endswith("_key")
