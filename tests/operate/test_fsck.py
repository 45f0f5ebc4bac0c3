"""fsck finds each thing that can be wrong between rows and files, mends it, and leaves alone what is only young."""

import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from sqlalchemy import select, update

from models import trash
from models.artifact import ArtifactRow
from models.base import db_now
from models.dataset import DatasetRow
from models.job import JobRow
from models.model import ModelRow
from models.teacher_output import TeacherOutputRow
from operate import fsck
from operate.fsck import QUARANTINE, Found
from tests.shelf import Shelf
from tests.worker.service import environment


@pytest.fixture
def job(shelf: Shelf) -> str:
    return shelf.job()


def check(shelf: Shelf, *, aged: bool = False, **options: bool) -> Found:
    """What fsck finds; `aged`: when all files have been there long enough."""
    with pytest.MonkeyPatch.context() as patch:
        if aged:
            patch.setattr(fsck, "GRACE", timedelta(seconds=-5))
        return fsck.check(shelf.database, shelf.storage, shelf.house.settings.work_dir, **options)


def kinds(found: Found) -> list[str]:
    return sorted(problem.kind for problem in found.problems)


def content(shelf: Shelf, key: str) -> bytes:
    return b"".join(shelf.storage.read(key))


def key_of(shelf: Shelf, job: str, name: str) -> str:
    with shelf.database.read() as session:
        return session.get_one(ArtifactRow, (job, name)).storage_key


def test_nothing_is_wrong_with_a_service_in_order(shelf: Shelf, job: str) -> None:
    found = check(shelf, aged=True, deep=True)
    assert (found.ok, found.problems, found.files, found.rows) == (True, (), 4, 5)


def test_a_file_without_a_row_is_moved_aside_once_it_is_old(shelf: Shelf, job: str) -> None:
    shelf.put("projects/p/orphan", b"123")
    assert check(shelf, repair=True).ok  # the row may be about to be committed
    assert "projects/p/orphan" in shelf.files()
    found = check(shelf, aged=True)
    assert (found.ok, kinds(found), found.problems[0].key) == (False, ["orphan"], "projects/p/orphan")
    assert "projects/p/orphan" in shelf.files()
    assert check(shelf, aged=True, repair=True).ok
    assert "projects/p/orphan" not in shelf.files()
    assert content(shelf, f"{QUARANTINE}projects/p/orphan") == b"123"
    assert check(shelf, aged=True).problems == ()


def test_files_of_what_is_being_purged_are_no_orphans_and_may_be_gone(shelf: Shelf, job: str) -> None:
    with shelf.database.write() as session:
        session.execute(update(JobRow).values(purging_at=db_now(session), deleted_at=db_now(session)))
    shelf.storage.delete(key_of(shelf, job, "report.json"))
    assert check(shelf, aged=True).problems == ()


def test_a_lost_file_is_told_by_every_row_that_names_it(shelf: Shelf, job: str) -> None:
    weights = key_of(shelf, job, "model.safetensors")
    shelf.storage.delete(weights)
    found = check(shelf)
    assert kinds(found) == ["missing", "missing"]
    assert not found.ok
    assert check(shelf, repair=True).ok
    assert shelf.read(ModelRow, shelf.student(job)).missing_at is not None
    assert shelf.read(ArtifactRow, (job, "model.safetensors")).missing_at is not None
    assert shelf.read(ArtifactRow, (job, "report.json")).missing_at is None
    after = check(shelf)
    assert (after.ok, after.problems, after.lost) == (True, (), 2)


def test_what_was_lost_and_is_there_again_is_used_again(shelf: Shelf, job: str) -> None:
    key = shelf.read(DatasetRow, shelf.read(JobRow, job).dataset_id).storage_key
    lost = content(shelf, key)
    shelf.storage.delete(key)
    check(shelf, repair=True)
    shelf.put(key, b"another"[: len(lost)])
    assert check(shelf).problems == ()  # not what was lost
    shelf.put(key, lost)
    found = check(shelf)
    assert kinds(found) == ["found"]
    check(shelf, repair=True)
    assert shelf.read(DatasetRow, shelf.read(JobRow, job).dataset_id).missing_at is None


def test_a_truncated_file_is_found_by_its_size_and_changed_bytes_by_their_digest(shelf: Shelf, job: str) -> None:
    shelf.put(key_of(shelf, job, "report.json"), b"{")
    shelf.put(key_of(shelf, job, "model.safetensors"), b"w3ights")
    shallow, deep = check(shelf), check(shelf, deep=True)
    assert kinds(shallow) == ["damaged"]
    assert "1 bytes, not 2" in shallow.problems[0].what
    assert kinds(deep) == ["damaged"] * 3  # the weights are an artifact and a model
    assert check(shelf, deep=True, repair=True).ok
    assert check(shelf, deep=True).problems == ()
    assert check(shelf).lost == 3


def test_outputs_that_are_lost_are_forgotten_as_they_can_be_made_again(shelf: Shelf, job: str) -> None:
    with shelf.database.read() as session:
        key = session.scalars(select(TeacherOutputRow.storage_key)).one()
    assert key is not None
    shelf.storage.delete(key)
    assert kinds(check(shelf, repair=True)) == ["missing"]
    assert shelf.counts()["teacher_output"] == shelf.counts()["teacher_output_use"] == 0
    assert check(shelf).problems == ()


def test_what_a_dead_process_left_half_written_is_removed_once_it_is_old(shelf: Shelf, job: str) -> None:
    part, cached = "projects/p/.x.123.part", shelf.house.settings.work_dir / "cache/models/y.123.part"
    shelf.put(part, b"half")
    cached.parent.mkdir(parents=True)
    cached.write_bytes(b"half")
    assert check(shelf, repair=True).problems == ()
    assert kinds(check(shelf, aged=True, repair=True)) == ["temporary", "temporary"]
    assert part not in shelf.files()
    assert not cached.exists()


def test_a_row_that_goes_while_fsck_looks_is_no_problem(shelf: Shelf, job: str, monkeypatch: Any) -> None:
    """The sweep removes file and rows between the listing and the second look."""
    with shelf.database.write() as session:
        row = trash.locked(session, ModelRow, shelf.house.project, shelf.student(job))
        assert row is not None
        row.weights_key = "projects/p/own"
    seen = fsck.stored_files.named

    def then_gone(session: Any) -> Any:
        rows = list(seen(session))
        monkeypatch.setattr(fsck.stored_files, "named", seen)
        shelf.delete(ModelRow, shelf.student(job))
        shelf.sweep()
        return rows

    monkeypatch.setattr(fsck.stored_files, "named", then_gone)
    assert check(shelf, repair=True).problems == ()


def run(shelf: Shelf, *arguments: str, **env: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "operate.fsck", *arguments]
    env = environment(shelf.house.settings) | env
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)


def test_the_exit_status_and_the_json_say_what_was_found(shelf: Shelf, job: str) -> None:
    clean = run(shelf)
    assert (clean.returncode, clean.stderr) == (0, "")
    assert "nothing is wrong" in clean.stdout
    shelf.storage.delete(key_of(shelf, job, "report.json"))
    wrong = run(shelf, "--json")
    said = json.loads(wrong.stdout)
    assert (wrong.returncode, said["ok"]) == (1, False)
    assert [problem["kind"] for problem in said["problems"]] == ["missing"]
    mended = run(shelf, "--repair")
    assert mended.returncode == 0
    assert "all mended" in mended.stdout
    assert "1 known to be lost" in run(shelf).stdout


def test_a_repair_against_a_storage_with_none_of_the_files_touches_nothing(
    shelf: Shelf, job: str, tmp_path: Path
) -> None:
    (elsewhere := tmp_path / "not mounted").mkdir()
    refused = run(shelf, "--repair", STILLHOUSE_STORAGE_URL=f"file://{quote(str(elsewhere))}")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "none is in the storage" in refused.stderr
    assert "STILLHOUSE_STORAGE_URL" in refused.stderr
    assert "nothing is wrong" in run(shelf).stdout
    for name in shelf.files():
        shelf.storage.delete(name)
    assert run(shelf, "--repair", "--all-lost").returncode == 0
    assert "known to be lost" in run(shelf).stdout


def test_without_a_database_nothing_is_made(shelf: Shelf, tmp_path: Path) -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith("STILLHOUSE_")}
    env["STILLHOUSE_DATA_DIR"] = str(tmp_path / "nowhere")
    done = subprocess.run([sys.executable, "-m", "operate.fsck"], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "--data-dir" in done.stderr
    assert not (tmp_path / "nowhere").exists()
