"""Deleting and restoring over HTTP: what is in the trash, what may go there, and who is told why not."""

from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from core.db import Database
from models import lifecycle, verbs
from models.artifact import ArtifactRow
from models.base import db_now
from models.model import ModelRow
from stillhouse.spec.ids import new_id
from tests.house import SPEC, House


@pytest.fixture
def done(house: House, post_job: Callable[..., str]) -> str:
    """Id of a job that has succeeded."""
    lease = house.take_up(post_job())
    house.succeed(lease, {"model.onnx": b"canary"})
    return lease.job_id


@pytest.fixture
def done_model(http: TestClient, done: str) -> str:
    """Id of its student."""
    return str(http.get(f"/v1/jobs/{done}").json()["student_model_id"])


@pytest.fixture
def paths(done: str, digits: str, done_model: str) -> dict[str, str]:
    """Where a thing of each kind is, none of which any job needs."""
    return {"jobs": f"/v1/jobs/{done}", "datasets": f"/v1/datasets/{digits}", "models": f"/v1/models/{done_model}"}


def ids(http: TestClient, path: str) -> list[str]:
    return [item["id"] for item in http.get(path).json()["data"]]


@pytest.mark.parametrize("kind", ["jobs", "datasets", "models"])
def test_what_is_deleted_is_in_the_trash_until_it_is_restored(
    http: TestClient, paths: dict[str, str], kind: str
) -> None:
    path = paths[kind]
    before = http.get(path).json()
    assert (before["deleted_at"], before["purge_at"]) == (None, None)
    first, again = http.delete(path), http.delete(path)
    assert first.status_code == again.status_code == 200
    assert first.json() == again.json() == http.get(path).json()
    deleted = first.json()
    assert deleted["deleted_at"] < deleted["purge_at"]
    assert ids(http, f"/v1/{kind}") == []
    assert ids(http, f"/v1/{kind}?deleted=true") == [deleted["id"]]
    for _ in range(2):
        restored = http.post(f"{path}/restore")
        assert restored.status_code == 200
        assert restored.json() | {"version": 0} == before | {"version": 0}
    assert ids(http, f"/v1/{kind}") == [before["id"]]
    assert ids(http, f"/v1/{kind}?deleted=true") == []


def test_a_poll_notices_that_its_job_was_deleted(http: TestClient, done: str) -> None:
    etag = http.get(f"/v1/jobs/{done}").headers["etag"]
    http.delete(f"/v1/jobs/{done}")
    seen = http.get(f"/v1/jobs/{done}", headers={"If-None-Match": etag})
    assert (seen.status_code, seen.json()["deleted_at"] is None) == (200, False)


def test_files_of_a_job_in_the_trash_can_still_be_had(http: TestClient, done: str) -> None:
    http.delete(f"/v1/jobs/{done}")
    assert http.get(f"/v1/jobs/{done}/artifacts/model.onnx").content == b"canary"


def test_a_job_that_is_not_over_cannot_be_deleted(http: TestClient, house: House, post_job: Any) -> None:
    job_id = post_job()
    for _ in range(2):
        answer = http.delete(f"/v1/jobs/{job_id}")
        assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
        assert f"/v1/jobs/{job_id}/cancel" in answer.json()["hint"]
        if http.get(f"/v1/jobs/{job_id}").json()["status"] == "queued":
            lease = house.take_up(job_id)
    with house.database.write() as session:
        verbs.request_cancel(session, job_id)
        assert lifecycle.cancelled(session, lease)
    assert http.delete(f"/v1/jobs/{job_id}").status_code == 200


def test_a_dataset_a_job_needs_cannot_be_deleted(http: TestClient, house: House, digits: str, post_job: Any) -> None:
    waiting, running = post_job(), post_job()
    house.take_up(running)
    for job_id in (waiting, running):
        answer = http.delete(f"/v1/datasets/{digits}")
        assert answer.status_code == 409
        assert job_id in answer.json()["detail"]
        http.post(f"/v1/jobs/{job_id}/cancel")
    assert http.delete(f"/v1/datasets/{digits}").status_code == 409  # still being cancelled


@pytest.mark.parametrize("ensemble", [False, True])
def test_a_model_that_teaches_a_job_cannot_be_deleted(
    http: TestClient, done_model: str, post_job: Any, ensemble: bool
) -> None:
    held = {"model": done_model}
    trained = {"train": SPEC["teacher"]["train"]}
    job_id = post_job(teacher={"ensemble": {"members": [trained, held]}} if ensemble else held)
    answer = http.delete(f"/v1/models/{done_model}")
    assert answer.status_code == 409
    assert job_id in answer.json()["detail"]
    http.post(f"/v1/jobs/{job_id}/cancel")
    assert http.delete(f"/v1/models/{done_model}").status_code == 200


def test_a_model_another_job_only_speaks_of_can_be_deleted(http: TestClient, done_model: str, post_job: Any) -> None:
    post_job(name=f"beats {done_model}", labels={"like": done_model})
    assert http.delete(f"/v1/models/{done_model}").status_code == 200


def test_a_new_job_cannot_use_what_is_in_the_trash(http: TestClient, paths: dict[str, str]) -> None:
    uses = {
        "datasets": ("/dataset/id", "deleted_dataset", lambda id: SPEC | {"dataset": {"id": id}}),
        "models": ("/teacher/model", "deleted_model", lambda id: SPEC | {"teacher": {"model": id}}),
    }
    for kind, (pointer, code, spec) in uses.items():
        id = http.delete(paths[kind]).json()["id"]
        answer = http.post("/v1/jobs", json=spec(id))
        assert answer.status_code == 422
        assert [(e["pointer"], e["code"]) for e in answer.json()["errors"]] == [(pointer, code)]
        assert f"/v1/{kind}/{id}/restore" in answer.json()["hint"]
        http.post(f"{paths[kind]}/restore")
        assert http.post("/v1/jobs", json=spec(id)).status_code == 202


def test_data_of_the_service_comes_out_of_the_trash_when_it_is_used(
    http: TestClient, digits: str, post_job: Any
) -> None:
    assert http.delete(f"/v1/datasets/{digits}").status_code == 200
    job = http.get(f"/v1/jobs/{post_job()}").json()
    assert job["dataset_id"] == digits
    assert ids(http, "/v1/datasets") == [digits]


def test_what_was_lost_is_refused_with_the_reason(
    http: TestClient, database: Database, done: str, done_model: str
) -> None:
    with database.write() as session:
        session.get_one(ModelRow, done_model).missing_at = db_now(session)
        session.get_one(ArtifactRow, (done, "model.onnx")).missing_at = db_now(session)
    for path in (f"/v1/jobs/{done}/artifacts/model.onnx", f"/v1/jobs/{done}/bundle.zip"):
        answer = http.get(path)
        assert (answer.status_code, answer.json()["code"]) == (410, "gone")
        assert "lost model.onnx" in answer.json()["detail"]
    [listed] = http.get(f"/v1/jobs/{done}/artifacts").json()["data"]
    assert listed["missing_at"] is not None
    answer = http.post("/v1/jobs", json=SPEC | {"teacher": {"model": done_model}})
    assert [e["code"] for e in answer.json()["errors"]] == ["lost_model"]


@pytest.mark.parametrize("kind", ["jobs", "datasets", "models"])
def test_what_is_not_there_cannot_be_deleted_or_restored(http: TestClient, kind: str) -> None:
    prefix = {"jobs": "job", "datasets": "ds", "models": "mdl"}[kind]
    for id in (new_id(prefix), "nonsense", "job_x"):  # type: ignore[arg-type]
        for method, path in (("DELETE", f"/v1/{kind}/{id}"), ("POST", f"/v1/{kind}/{id}/restore")):
            assert http.request(method, path).status_code == 404
