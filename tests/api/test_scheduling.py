"""What a caller sees of the queue: place and reason, the limit, needs and priority."""

from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from api import line
from api.main import create_app
from core.db import Database
from core.settings import Settings
from models import queue, workers
from models.scheduling import Machine
from stillhouse.spec.limits import Limits
from tests.house import SPEC

PLAIN = Machine(cuda=False, memory_bytes=8 * 10**9, cores=2)


@pytest.fixture
def app(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> FastAPI:
    monkeypatch.setattr(line, "FRESH_SECONDS", 0.0)
    monkeypatch.setattr("api.polling.FRESH_SECONDS", 0.0)
    return create_app(settings.model_copy(update={"limits": Limits(max_queued_jobs=3)}))


def submit(http: TestClient, **changes: Any) -> dict[str, Any]:
    answer = http.post("/v1/jobs", json=SPEC | changes)
    assert answer.status_code == 202, answer.text
    job: dict[str, Any] = answer.json()
    return job


def take_up(database: Database) -> str:
    with database.write() as session:
        lease = queue.claim_next(session, "wrk_1", PLAIN, running_limit=9, lease_seconds=60)
    assert lease is not None
    return lease.job_id


def test_a_waiting_job_tells_its_place_which_moves_and_goes(http: TestClient, digits: str, database: Database) -> None:
    with database.write() as session:
        workers.register(session, "wrk_1", host="h", pid=1, machine=PLAIN)
    first, second = submit(http), submit(http)
    assert (first["queue"]["position"], first["queue"]["reason"]) == (1, "starting")
    assert (second["queue"]["position"], second["queue"]["reason"]) == (2, "workers_busy")
    where = f"/v1/jobs/{second['id']}"
    etag = http.get(where).headers["etag"]
    assert http.get(where, headers={"If-None-Match": etag}).status_code == 304
    assert take_up(database) == first["id"]
    moved = http.get(where, headers={"If-None-Match": etag})
    assert moved.status_code == 200
    assert moved.json()["queue"]["position"] == 1
    listed = {job["id"]: job["queue"] for job in http.get("/v1/jobs").json()["data"]}
    assert listed == {first["id"]: None, second["id"]: moved.json()["queue"]}
    assert http.post(f"{where}/cancel").json()["queue"] is None


def test_jobs_of_others_count_and_show_nothing_of_themselves(
    http: TestClient, digits: str, other_key: str, database: Database
) -> None:
    submit(http)
    theirs = http.post("/v1/jobs", json=SPEC, headers={"Authorization": f"Bearer {other_key}"}).json()
    assert theirs["queue"]["position"] == 2
    assert set(theirs["queue"]) == {"position", "reason", "detail"}


def test_a_need_no_worker_meets_is_named(http: TestClient, digits: str, database: Database) -> None:
    with database.write() as session:
        workers.register(session, "wrk_1", host="h", pid=1, machine=PLAIN)
    told = submit(http, resources={"device": "cuda", "memory_gb": 12.5})["queue"]
    assert told["reason"] == "no_fitting_worker"
    assert "CUDA and 12.5 GB of memory" in told["detail"]


def test_a_submission_beyond_the_limit_is_refused_until_one_is_taken_up(
    http: TestClient, digits: str, database: Database
) -> None:
    first = submit(http)
    submit(http)
    last = http.post("/v1/jobs", json=SPEC, headers={"Idempotency-Key": "k"})
    for path in ("/v1/jobs", f"/v1/jobs/{first['id']}/clone"):
        refused = http.post(path, json=SPEC if path == "/v1/jobs" else None)
        assert (refused.status_code, refused.json()["code"]) == (429, "queue_full"), path
        assert "STILLHOUSE_LIMITS__MAX_QUEUED_JOBS" in refused.json()["hint"]
        assert refused.headers["retry-after"] == "600", "nothing was taken up, so nothing says when"
    # What was accepted is told again, and what would run is still worked out.
    assert http.post("/v1/jobs", json=SPEC, headers={"Idempotency-Key": "k"}).json()["id"] == last.json()["id"]
    assert http.post("/v1/jobs?validate_only=true", json=SPEC).status_code == 200
    take_up(database)
    submit(http)
    take_up(database)
    submit(http)
    refused = http.post("/v1/jobs", json=SPEC)
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1800"), "two in the last hour"
    assert "took up 2 of its jobs" in refused.json()["hint"]


@pytest.mark.parametrize("priority", ["urgent", 101, -101, 1.5, True, None])
def test_a_priority_that_is_none_is_refused_by_name(http: TestClient, priority: object) -> None:
    answer = http.post("/v1/jobs", json=SPEC | {"priority": priority})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"].startswith("/priority")


def test_the_priority_is_echoed_as_it_was_given(http: TestClient, digits: str) -> None:
    job = submit(http, priority="high")
    assert (job["spec"]["priority"], job["resolved"]["priority"]) == ("high", "high")
    assert submit(http)["resolved"]["priority"] == "normal"
