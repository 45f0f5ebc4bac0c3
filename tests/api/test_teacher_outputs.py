"""Kept teacher outputs over HTTP: listed with size and hits, deleted unless a running job reads them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from api.main import create_app
from core.settings import Settings
from core.storage import make_storage
from models import lifecycle, teacher_outputs, verbs
from models.lifecycle import Lease
from stillhouse.spec.events import OutputsWanted
from stillhouse.spec.limits import Limits
from tests.house import SPEC, House


def keep(house: House, job_id: str, dataset_id: str, folder: Path, *, key: str = "k", end: bool = True) -> Lease:
    """A job that has made outputs, as a worker records it."""
    lease = house.take_up(job_id)
    wanted = OutputsWanted(key=key, teacher="mlp 64-64-10", views=2, top_k=3, rows=1257, bytes=55_308)
    stored = teacher_outputs.file_key(house.project, key, lease.job_id, lease.attempt)
    path = folder / "outputs"
    path.write_bytes(b"canary")
    make_storage(house.settings).put(stored, path)
    with house.database.write() as session:
        teacher_outputs.turn(
            session, house.project, lease, wanted, dataset_id=dataset_id, teacher_model_id=None, max_bytes=10**9
        )
        assert teacher_outputs.ready(session, house.project, lease, key, storage_key=stored)
    if end:
        with house.database.write() as session:
            verbs.request_cancel(session, job_id)
            assert lifecycle.cancelled(session, lease)
    return lease


def files(house: House) -> list[str]:
    """Of teacher outputs, in the storage."""
    return [
        str(path) for path in house.settings.data_dir.rglob("*") if path.is_file() and "teacher-outputs" in str(path)
    ]


@pytest.fixture
def kept(house: House, post_job: Callable[..., str], digits: str, tmp_path: Path) -> str:
    """Id of a job that made outputs and is over."""
    return keep(house, post_job(), digits, tmp_path).job_id


def test_kept_outputs_are_listed_with_size_and_hits(http: TestClient, kept: str, digits: str) -> None:
    answer = http.get("/v1/teacher-outputs").json()
    assert (answer["object"], answer["has_more"]) == ("list", False)
    [found] = answer["data"]
    assert found["id"].startswith("out_")
    expected: dict[str, Any] = {
        "object": "teacher_outputs",
        "dataset_id": digits,
        "teacher": "mlp 64-64-10",
        "teacher_model_id": None,
        "job_id": kept,
        "part": "train",
        "views": 2,
        "top_k": 3,
        "rows": 1257,
        "bytes": 55_308,
        "hits": 0,
    }
    assert {name: found[name] for name in expected} == expected
    assert found["created_at"] <= found["last_used_at"]


def test_what_is_still_being_made_is_not_listed(http: TestClient, house: House, post_job: Any, digits: str) -> None:
    lease = house.take_up(post_job())
    wanted = OutputsWanted(key="k", teacher="mlp", views=1, top_k=None, rows=1, bytes=1)
    with house.database.write() as session:
        teacher_outputs.turn(
            session, house.project, lease, wanted, dataset_id=digits, teacher_model_id=None, max_bytes=10
        )
    assert http.get("/v1/teacher-outputs").json()["data"] == []


def test_the_list_comes_in_pages(http: TestClient, house: House, post_job: Any, digits: str, tmp_path: Path) -> None:
    for key in "abc":
        keep(house, post_job(), digits, tmp_path, key=key)
    first = http.get("/v1/teacher-outputs?limit=2").json()
    assert first["has_more"]
    second = http.get("/v1/teacher-outputs", params={"limit": 2, "after": first["next_cursor"]}).json()
    ids = [item["id"] for item in first["data"] + second["data"]]
    assert ids == sorted(ids, reverse=True)
    assert len(set(ids)) == 3


def test_deleted_outputs_are_gone_with_their_file(http: TestClient, house: House, kept: str) -> None:
    [found] = http.get("/v1/teacher-outputs").json()["data"]
    assert len(files(house)) == 1
    answer = http.delete(f"/v1/teacher-outputs/{found['id']}")
    assert (answer.status_code, answer.content) == (204, b"")
    assert http.get("/v1/teacher-outputs").json()["data"] == []
    assert files(house) == []
    assert http.delete(f"/v1/teacher-outputs/{found['id']}").status_code == 404


def test_outputs_a_running_job_reads_stay(
    http: TestClient, house: House, post_job: Any, digits: str, tmp_path: Path
) -> None:
    lease = keep(house, post_job(), digits, tmp_path, end=False)
    [found] = http.get("/v1/teacher-outputs").json()["data"]
    answer = http.delete(f"/v1/teacher-outputs/{found['id']}")
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
    assert len(files(house)) == 1
    house.succeed(lease, {"model.onnx": b"x"})
    assert http.delete(f"/v1/teacher-outputs/{found['id']}").status_code == 204


def test_foreign_outputs_are_not_there(
    anyone: TestClient, http: TestClient, kept: str, house: House, other_key: str
) -> None:
    [found] = http.get("/v1/teacher-outputs").json()["data"]
    stranger = {"Authorization": f"Bearer {other_key}"}
    assert anyone.get("/v1/teacher-outputs", headers=stranger).json()["data"] == []
    answer = anyone.delete(f"/v1/teacher-outputs/{found['id']}", headers=stranger)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert len(files(house)) == 1


def test_the_client_lists_and_deletes_them(house: House, live: str, kept: str) -> None:
    with house.client(url=live) as client:
        [found] = client.teacher_outputs.list()
        assert (found.job_id, found.hits) == (kept, 0)
        client.teacher_outputs.delete(found.id)
        assert list(client.teacher_outputs.list()) == []


def test_more_views_than_fit_the_quota_are_refused_and_nothing_is_written(
    settings: Settings, api_key: str, digits: str, traces: Any
) -> None:
    small = settings.model_copy(update={"limits": Limits(max_outputs_bytes=1_000_000)})
    spec = SPEC | {
        "training": {"augmentation": {"crop_padding": 1}},
        "teacher_outputs": {"views": 20},
    }
    with TestClient(create_app(small)) as client:
        before = traces()
        answer = client.post("/v1/jobs", json=spec, headers={"Authorization": f"Bearer {api_key}"})
        assert answer.status_code == 422
        [error] = answer.json()["errors"]
        assert (error["pointer"], error["code"]) == ("/teacher_outputs/views", "over_limit")
        assert "would fit" in error["detail"]
        assert traces() == before
        fits = int(error["detail"].split(" would fit")[0].split()[-1])
        for views, status in ((fits, 202), (fits + 1, 422)):
            asked = spec | {"teacher_outputs": {"views": views}}
            answer = client.post("/v1/jobs", json=asked, headers={"Authorization": f"Bearer {api_key}"})
            assert answer.status_code == status
