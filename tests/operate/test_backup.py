"""A backup taken while the service works is whole, and comes back on either kind of database."""

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from core.db import Database
from core.settings import Settings
from core.storage import make_storage
from models import holds, stored_files
from models.dataset import DatasetRow
from models.job import JobRow
from models.metric import MetricRow
from models.teacher_output import TeacherOutputRow
from operate import backup, fsck
from operate.archive import Reader
from operate.restore import restore
from tests.shelf import Shelf
from tests.worker.service import environment


@pytest.fixture(params=["sqlite", "postgres"])
def elsewhere(request: pytest.FixtureRequest, tmp_path: Path, storage_settings: dict[str, str]) -> Settings:
    """Another service, migrated and empty: the backup may come from the same kind of database or from the other."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'elsewhere.db'}"
    else:
        url = request.getfixturevalue("second_postgres_url")
    given = {"data_dir": tmp_path / "elsewhere", "database_url": url, "secret_key": "s" * 32} | storage_settings
    if storage_settings:
        given["storage_url"] = storage_settings["storage_url"] + "-elsewhere"
    return Settings.model_validate(given)


PLACEHOLDERS = {"k", "none"}
"""What rows of a job of `Shelf` name for the moment until their files are made."""


def take(shelf: Shelf, target: Path) -> backup.Taken:
    return backup.take(shelf.database, shelf.storage, shelf.house.settings, target)


def bring_back(source: Path, settings: Settings) -> Database:
    reader = Reader(source)
    try:
        restore(reader, settings)
    finally:
        reader.close()
    return Database(settings.resolved_database_url)


def everything(database: Database, table: Any) -> list[dict[str, Any]]:
    with database.read() as session:
        query = select(table.__table__).order_by(*table.__mapper__.primary_key)
        return [dict(row) for row in session.execute(query).mappings()]


@pytest.mark.parametrize("name", ["saved", "saved.tar"])
def test_everything_comes_back_as_it_was(shelf: Shelf, elsewhere: Settings, tmp_path: Path, name: str) -> None:
    job_id = shelf.job()
    shelf.job()
    before = {table: everything(shelf.database, table) for table in (JobRow, DatasetRow, MetricRow, TeacherOutputRow)}
    taken = take(shelf, tmp_path / name)
    assert (taken.files, taken.wrong, taken.rows["job"]) == (8, (), 2)
    restored = bring_back(tmp_path / name, elsewhere)
    for table, rows in before.items():
        assert everything(restored, table) == rows
    with restored.read() as session:
        # What was absent is absent, and not the word null.
        assert session.scalars(select(JobRow.id).where(JobRow.error.is_(None), JobRow.id == job_id)).all() == [job_id]
    found = fsck.check(restored, make_storage(elsewhere), elsewhere.work_dir, deep=True)
    assert (found.problems, found.files) == ((), 8)
    restored.close()


def test_jobs_at_work_wait_for_a_worker_again(shelf: Shelf, elsewhere: Settings, tmp_path: Path) -> None:
    waiting = shelf.hooked.submit(None)
    running, stopping = (shelf.hooked.claim(shelf.hooked.submit(None)) for _ in range(2))
    with shelf.database.write() as session:
        session.execute(update(JobRow).where(JobRow.id == stopping.job_id).values(status="cancelling"))
    restored = _without_files(shelf, elsewhere, tmp_path)
    with restored.read() as session:
        found = {row.id: row for row in session.scalars(select(JobRow))}
    assert {id: row.status for id, row in found.items()} == {
        waiting: "queued",
        running.job_id: "queued",
        stopping.job_id: "cancelled",
    }
    assert (found[running.job_id].lost_attempts, found[running.job_id].worker_id) == (0, None)
    shelf.house.database, here = restored, shelf.house.database
    lease = shelf.house.take_up(running.job_id)
    assert lease.attempt == running.attempt + 1
    shelf.house.database = here
    restored.close()


def _without_files(shelf: Shelf, elsewhere: Settings, tmp_path: Path) -> Database:
    """The datasets of these jobs name no real file."""
    with shelf.database.write() as session:
        session.execute(update(DatasetRow).values(storage_key=""))
    take(shelf, tmp_path / "saved")
    return bring_back(tmp_path / "saved", elsewhere)


def test_while_jobs_end_and_things_are_purged_a_backup_is_whole(
    shelf: Shelf, elsewhere: Settings, tmp_path: Path
) -> None:
    for _ in range(3):
        shelf.job()
    stop, died = threading.Event(), []

    def work() -> None:
        """What the service does meanwhile."""
        try:
            while not stop.is_set():
                shelf.delete(JobRow, shelf.job())
                shelf.sweep()
        except Exception as error:
            died.append(error)

    other = threading.Thread(target=work)
    other.start()
    try:
        for turn in range(4):
            assert set(take(shelf, tmp_path / f"saved{turn}").wrong) <= PLACEHOLDERS
    finally:
        stop.set()
        other.join()
    assert died == []
    restored = bring_back(tmp_path / "saved3", elsewhere)
    with restored.read() as session:
        assert len(session.scalars(select(JobRow.id).where(JobRow.purging_at.is_(None))).all()) >= 3
    found = fsck.check(restored, make_storage(elsewhere), elsewhere.work_dir, deep=True)
    assert [problem for problem in found.problems if problem.key not in PLACEHOLDERS] == []
    restored.close()


def test_nothing_is_purged_while_files_are_copied(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf.delete(JobRow, shelf.job())
    dump = backup.rows.dump

    def then_sweep(*arguments: Any) -> None:
        dump(*arguments)
        assert shelf.sweep() == 0

    monkeypatch.setattr(backup.rows, "dump", then_sweep)
    assert take(shelf, tmp_path / "saved").wrong == ()
    assert shelf.sweep() == 1
    with shelf.database.write() as session:
        assert not holds.in_force(session)


def test_what_can_be_made_again_and_went_meanwhile_is_left_out(
    shelf: Shelf, elsewhere: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, gone = shelf.job(), shelf.job()
    dump = backup.rows.dump

    def then_evict(*arguments: Any) -> None:
        dump(*arguments)
        with shelf.database.read() as session:
            row = session.scalars(select(TeacherOutputRow).where(TeacherOutputRow.job_id == gone)).one()
        assert row.storage_key is not None
        shelf.storage.delete(row.storage_key)

    monkeypatch.setattr(backup.rows, "dump", then_evict)
    taken = take(shelf, tmp_path / "saved.tar")
    assert (taken.wrong, taken.files, taken.rows["teacher_output"], taken.rows["teacher_output_use"]) == ((), 7, 1, 1)
    restored = bring_back(tmp_path / "saved.tar", elsewhere)
    assert [row["job_id"] for row in everything(restored, TeacherOutputRow)] == [kept]
    restored.close()


def test_a_file_that_was_lost_before_is_told_and_the_rest_is_saved(shelf: Shelf, tmp_path: Path) -> None:
    job_id = shelf.job()
    dataset = shelf.read(DatasetRow, shelf.read(JobRow, job_id).dataset_id)
    shelf.put(dataset.storage_key, b"c4nary")
    with shelf.database.read() as session:
        [weights] = [f.key for f in stored_files.named(session) if f.column.table.__tablename__ == "model"]
    shelf.storage.delete(weights)
    assert take(shelf, tmp_path / "saved").wrong == tuple(sorted([dataset.storage_key, weights]))
    done = run(shelf, "backup", str(tmp_path / "again.tar"))
    assert done.returncode == 1
    assert dataset.storage_key in done.stdout


def run(shelf: Shelf, *arguments: str, **env: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "stillhouse", *arguments]
    everything = environment(shelf.house.settings) | env
    return subprocess.run(command, env=everything, capture_output=True, text=True, timeout=120)


def test_the_commands_say_what_they_did(shelf: Shelf, tmp_path: Path, sqlite_elsewhere: dict[str, str]) -> None:
    shelf.job()
    shelf.hooked.claim(shelf.hooked.submit(None))
    with shelf.database.write() as session:
        session.execute(update(DatasetRow).where(DatasetRow.storage_key == "k").values(storage_key=""))
    target = str(tmp_path / "saved.tar")
    done = run(shelf, "backup", target, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["files"] == 4
    again = run(shelf, "backup", target)
    assert (again.returncode, again.stdout) == (2, "")
    assert "is there already" in again.stderr
    back = run(shelf, "restore", target, **sqlite_elsewhere)
    assert (back.returncode, back.stderr) == (0, "")
    assert "4 files" in back.stdout
    checked = run(shelf, "fsck", "--deep", **sqlite_elsewhere)
    assert checked.returncode == 0
    assert "nothing is wrong" in checked.stdout
    database = Database(sqlite_elsewhere["STILLHOUSE_DATABASE_URL"])
    with database.read() as session:
        assert session.scalars(select(JobRow.status).order_by(JobRow.id)).all() == ["succeeded", "queued"]
    database.close()
