"""What an operator sets for one project holds for it and for no other, on each database."""

import json
import subprocess
import sys

import pytest
from fastapi.testclient import TestClient

from api.main import create_app
from core.db import Database
from models import keys, project_limits, queue
from models.scheduling import Machine
from stillhouse.spec.errors import QueueFull
from stillhouse.spec.limits import Limits
from tests.shelf import Shelf
from tests.worker.service import environment


@pytest.fixture
def storage_kind() -> str:
    """Limits are rows."""
    return "folder"


@pytest.fixture
def place(database_kind: str) -> tuple[str, str]:
    return database_kind, "folder"


@pytest.fixture(params=["sqlite", "postgres"])
def database_kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def limits(shelf: Shelf, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "stillhouse", "limits", *arguments]
    return subprocess.run(command, env=environment(shelf.house.settings), capture_output=True, text=True, timeout=60)


def claim(database: Database) -> bool:
    with database.write() as session:
        machine = Machine(cuda=False, memory_bytes=10**12, cores=1)
        return queue.claim_next(session, "wrk_1", machine, running_limit=9, lease_seconds=60) is not None


def test_the_limit_of_running_jobs_is_the_projects_own_and_the_answer_tells_it(shelf: Shelf) -> None:
    for _ in range(3):
        shelf.hooked.submit(None)
    assert limits(shelf, "default", "--max-running-jobs", "1").returncode == 0
    assert [claim(shelf.database) for _ in range(2)] == [True, False]
    with shelf.database.read() as session:
        found = queue.look(session, running_limit=9, fresh_seconds=60).places
    assert {place.reason for place in found.values()} == {"no_worker"}
    assert limits(shelf, "default", "--max-running-jobs", "default").returncode == 0
    assert [claim(shelf.database) for _ in range(3)] == [True, True, False]


def test_the_limit_of_waiting_jobs_is_the_projects_own(shelf: Shelf, database: Database) -> None:
    shelf.hooked.submit(None)
    limits(shelf, "default", "--max-queued-jobs", "1")
    with database.write() as session:
        other = keys.project_named(session, "other").id
        queue.make_room(session, other, limits=Limits(max_queued_jobs=9))
        with pytest.raises(QueueFull, match="1 jobs"):
            queue.make_room(session, shelf.house.project, limits=Limits(max_queued_jobs=9))


def test_storage_and_requests_are_limited_and_told(shelf: Shelf) -> None:
    shelf.job()
    limits(shelf, "default", "--max-storage-bytes", "5", "--max-requests-per-minute", "3")
    with TestClient(create_app(shelf.house.settings)) as http:
        http.headers["Authorization"] = f"Bearer {shelf.house.key}"
        usage = http.get("/v1/usage")
        assert (usage.json()["max_storage_bytes"], usage.json()["max_requests_per_minute"]) == (5, 3)
        assert "q=3;w=60" in usage.headers["ratelimit-policy"]
        full = http.post("/v1/jobs", json={})
        assert (full.status_code, full.json()["code"]) == (429, "quota_exceeded")
        assert "limit of 5" in full.json()["detail"]
        assert http.get("/v1/jobs").status_code == 200
        refused = http.get("/v1/jobs")
        assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")


def test_the_command_shows_sets_and_refuses(shelf: Shelf) -> None:
    limits(shelf, "default", "--max-running-jobs", "8")
    assert "max_running_jobs 8, max_storage_bytes 1,099,511,627,776 (default)" in limits(shelf).stdout
    limits(shelf, "default", "--max-queued-jobs", "7")
    shown = json.loads(limits(shelf, "--json").stdout)["projects"]["default"]
    assert (shown["max_running_jobs"], shown["max_queued_jobs"], shown["max_storage_bytes"]) == (8, 7, None)
    for wrong, said in (
        (["nobody", "--max-running-jobs", "8"], "no project nobody"),
        (["default", "--max-running-jobs", "0"], "--max-running-jobs"),
        (["default", "--max-running-jobs", "many"], "max-running-jobs"),
        (["--max-running-jobs", "8"], "Name the project"),
    ):
        done = limits(shelf, *wrong)
        assert (done.returncode, done.stdout) == (2, ""), wrong
        assert said in done.stderr
    with shelf.database.read() as session:
        assert project_limits.of(session, shelf.house.project).max_running_jobs == 8
