"""Every verb in every state, on both databases: one clear answer each, and no harm when repeated."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from safetensors.numpy import load, save_file

from core.storage import make_storage, sha256_of
from models import checkpoints, lifecycle, verbs
from models.lifecycle import Lease
from stillhouse.spec.checkpoint import BEST_PREFIX
from stillhouse.spec.events import CheckpointSaved
from stillhouse.spec.states import JobStatus
from stillhouse.spec.views import Job, JobError
from tests.house import House

PostJob = Callable[..., str]
WHY = JobError(code="engine_fault", detail="It broke.", hint="Tell us.")

STATES = ["queued", "running", "distilling", "pausing", "paused", "cancelling", "succeeded", "failed", "cancelled"]
VERBS = ["cancel", "pause", "resume", "finish", "retry"]

# (state, verb) → (answer's status, the job's status afterwards). A 409 leaves the state as it was.
TABLE: dict[tuple[str, str], tuple[int, str]] = {
    ("queued", "cancel"): (200, "cancelled"),
    ("queued", "pause"): (200, "paused"),
    ("queued", "resume"): (202, "queued"),
    ("queued", "finish"): (409, "queued"),
    ("queued", "retry"): (202, "queued"),
    ("running", "cancel"): (202, "cancelling"),
    ("running", "pause"): (202, "pausing"),
    ("running", "resume"): (202, "running"),
    ("running", "finish"): (409, "running"),
    ("running", "retry"): (202, "running"),
    ("distilling", "cancel"): (202, "cancelling"),
    ("distilling", "pause"): (202, "pausing"),
    ("distilling", "resume"): (202, "running"),
    ("distilling", "finish"): (202, "running"),
    ("distilling", "retry"): (202, "running"),
    ("pausing", "cancel"): (202, "cancelling"),
    ("pausing", "pause"): (202, "pausing"),
    ("pausing", "resume"): (202, "running"),
    ("pausing", "finish"): (202, "running"),
    ("pausing", "retry"): (409, "pausing"),
    ("paused", "cancel"): (200, "cancelled"),
    ("paused", "pause"): (200, "paused"),
    ("paused", "resume"): (202, "queued"),
    ("paused", "finish"): (202, "queued"),
    ("paused", "retry"): (409, "paused"),
    ("cancelling", "cancel"): (202, "cancelling"),
    ("cancelling", "pause"): (409, "cancelling"),
    ("cancelling", "resume"): (409, "cancelling"),
    ("cancelling", "finish"): (409, "cancelling"),
    ("cancelling", "retry"): (409, "cancelling"),
    ("succeeded", "cancel"): (409, "succeeded"),
    ("succeeded", "pause"): (409, "succeeded"),
    ("succeeded", "resume"): (409, "succeeded"),
    ("succeeded", "finish"): (200, "succeeded"),
    ("succeeded", "retry"): (409, "succeeded"),
    ("failed", "cancel"): (409, "failed"),
    ("failed", "pause"): (409, "failed"),
    ("failed", "resume"): (409, "failed"),
    ("failed", "finish"): (409, "failed"),
    ("failed", "retry"): (202, "queued"),
    ("cancelled", "cancel"): (200, "cancelled"),
    ("cancelled", "pause"): (409, "cancelled"),
    ("cancelled", "resume"): (409, "cancelled"),
    ("cancelled", "finish"): (409, "cancelled"),
    ("cancelled", "retry"): (202, "queued"),
}


def saved(path: Path, *, number: int = 1, step: int = 40, phase: str = "distilling") -> CheckpointSaved:
    """What a trainer says of a checkpoint's file."""
    return CheckpointSaved(
        file=f"{number:06d}.checkpoint",
        bytes=path.stat().st_size,
        sha256=sha256_of(path),
        phase=phase,  # type: ignore[arg-type]
        epoch=1,
        step=step,
        steps=100,
        loss=0.5,
        best=True,
    )


def keep(house: House, lease: Lease, folder: Path, tensors: dict[str, Any], **options: Any) -> str:
    """Store and record a checkpoint with these tensors, as a supervisor does. Returns its storage key."""
    path = folder / "file"
    save_file(tensors, path, metadata={"facts": "{}"})
    event = saved(path, **options)
    key = f"projects/{house.project}/jobs/{lease.job_id}/checkpoints/{lease.attempt}-{event.file}"
    make_storage(house.settings).put(key, path)
    with house.database.write() as session:
        assert checkpoints.add(session, lease, event, storage_key=key, points=0)
    return key


@pytest.fixture
def tensors() -> dict[str, Any]:
    np = pytest.importorskip("numpy")
    return {
        "student/0.weight": np.zeros((3, 2), "float32"),
        f"{BEST_PREFIX}0.weight": np.arange(6, dtype="float32").reshape(3, 2),
        "rng": np.arange(5, dtype="uint8"),
        f"{BEST_PREFIX}0.bias": np.ones(3, "float32"),
    }


def bring(state: str, house: House, post_job: PostJob, folder: Path, tensors: dict[str, Any]) -> str:
    """A new job in that state; those that are pausing or paused have a checkpoint of a student."""
    job_id = post_job()
    if state == "queued":
        return job_id
    lease = house.take_up(job_id)
    if state == "distilling":
        house.advance(lease, step=5)
    if state in ("pausing", "paused"):
        keep(house, lease, folder, tensors)
    with house.database.write() as session:
        if state in ("pausing", "paused"):
            assert verbs.request_pause(session, job_id) is JobStatus.PAUSING
        if state == "paused":
            assert lifecycle.hand_back(session, lease, "Put aside.")
        if state in ("cancelling", "cancelled"):
            assert verbs.request_cancel(session, job_id) is JobStatus.CANCELLING
        if state == "cancelled":
            assert lifecycle.cancelled(session, lease)
    if state == "succeeded":
        house.succeed(lease, {"model.safetensors": b"weights"})
    if state == "failed":
        house.fail(lease, WHY)
    return job_id


def test_the_table_is_whole() -> None:
    assert set(TABLE) == {(state, verb) for state in STATES for verb in VERBS}
    assert {state for state in STATES if state != "distilling"} == set(JobStatus)


@pytest.mark.parametrize(("state", "verb"), TABLE, ids=[f"{state}-{verb}" for state, verb in TABLE])
def test_each_verb_in_each_state(
    http: TestClient, house: House, post_job: PostJob, tmp_path: Path, tensors: dict[str, Any], state: str, verb: str
) -> None:
    job_id = bring(state, house, post_job, tmp_path, tensors)
    code, after = TABLE[state, verb]
    before = http.get(f"/v1/jobs/{job_id}").json()
    answers = [http.post(f"/v1/jobs/{job_id}/{verb}") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [code] * 3, answers[0].text
    job = Job.model_validate_json(http.get(f"/v1/jobs/{job_id}").content)
    assert job.status == after
    if code == 409:
        assert http.get(f"/v1/jobs/{job_id}").json() == before
        problem = answers[0].json()
        assert problem["code"] in ("conflict", "job_finished", "not_ready")
        assert problem["hint"]
    else:
        assert [answer.json()["status"] for answer in answers] == [after] * 3
        # Asked three times, told once.
        assert job.version <= before["version"] + 1
    assert (job.finished_at is not None) == job.status.final
    assert job.wish == ("finish" if verb == "finish" and code == 202 else None)


def test_a_retried_job_is_the_same_job_with_its_attempts_anew(
    http: TestClient, house: House, post_job: PostJob, tmp_path: Path, tensors: dict[str, Any]
) -> None:
    job_id = post_job(webhook={"url": "https://example.com/"})
    lease = house.take_up(job_id)
    keep(house, lease, tmp_path, tensors)
    house.fail(lease, WHY)
    assert http.post(f"/v1/jobs/{job_id}/retry").json()["id"] == job_id
    job = Job.model_validate_json(http.get(f"/v1/jobs/{job_id}").content)
    assert (job.status, job.error, job.finished_at, job.attempt) == ("queued", None, None, 1)
    assert len(http.get(f"/v1/jobs/{job_id}/checkpoints").json()["data"]) == 1
    # It may end again, and its webhook is told of that end.
    again = house.take_up(job_id)
    assert again.attempt == 2
    house.succeed(again, {"model.safetensors": b"w"})
    assert [sent["type"] for sent in http.get(f"/v1/jobs/{job_id}/webhook-deliveries").json()["data"]] == [
        "job.succeeded"
    ]


def test_a_pause_that_comes_when_the_work_is_done_changes_nothing(
    http: TestClient, house: House, post_job: PostJob
) -> None:
    lease = house.take_up(post_job())
    house.advance(lease, phase="exporting", step=1)
    assert http.post(f"/v1/jobs/{lease.job_id}/pause").json()["status"] == "pausing"
    house.succeed(lease, {"model.safetensors": b"w"})
    assert http.get(f"/v1/jobs/{lease.job_id}").json()["status"] == "succeeded"


def test_a_clone_has_the_posted_spec_with_the_changes(http: TestClient, post_job: PostJob) -> None:
    first = http.get(f"/v1/jobs/{post_job(name='first', labels={'a': '1', 'b': '2'})}").json()
    changes = {"temperature": 2, "name": None, "labels": {"b": None, "c": "3"}, "student": {"hidden": [16]}}
    answer = http.post(f"/v1/jobs/{first['id']}/clone", json=changes)
    assert answer.status_code == 202, answer.text
    made = answer.json()
    assert answer.headers["location"] == f"/v1/jobs/{made['id']}"
    assert made["id"] != first["id"]
    assert made["cloned_from"] == first["id"]
    expected = first["spec"] | {"temperature": 2, "labels": {"a": "1", "c": "3"}}
    expected["student"] = {"name": "mlp", "hidden": [16]}
    del expected["name"]
    assert made["spec"] == expected
    same = http.post(f"/v1/jobs/{first['id']}/clone").json()
    assert same["spec"] == first["spec"]


def test_a_clone_sent_twice_under_one_key_is_one_job(http: TestClient, post_job: PostJob) -> None:
    job_id = post_job()
    key = {"Idempotency-Key": "again"}
    made = [http.post(f"/v1/jobs/{job_id}/clone", json={"temperature": 2}, headers=key) for _ in range(2)]
    assert made[0].json()["id"] == made[1].json()["id"]
    assert made[1].headers["idempotent-replayed"] == "true"
    other = http.post(f"/v1/jobs/{job_id}/clone", json={"temperature": 3}, headers=key)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_mismatch")


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        (b'{"temperature": -1}', "/temperature"),
        (b'{"stduent": {}}', "/stduent"),
        (b"[1]", ""),
        (b'{"dataset": null}', "/dataset"),
    ],
)
def test_wrong_changes_are_named(http: TestClient, post_job: PostJob, body: bytes, pointer: str) -> None:
    answer = http.post(f"/v1/jobs/{post_job()}/clone", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 422
    assert pointer in [error["pointer"] for error in answer.json()["errors"]]
    assert len(http.get("/v1/jobs").json()["data"]) == 1


def test_the_newest_two_checkpoints_are_listed(
    http: TestClient, house: House, post_job: PostJob, tmp_path: Path, tensors: dict[str, Any]
) -> None:
    lease = house.take_up(post_job())
    assert http.get(f"/v1/jobs/{lease.job_id}/checkpoints").json()["data"] == []
    for number in (1, 2, 3):
        keep(house, lease, tmp_path, tensors, number=number, step=10 * number)
    found = http.get(f"/v1/jobs/{lease.job_id}/checkpoints").json()["data"]
    assert [(one["number"], one["step"], one["phase"]) for one in found] == [
        (3, 30, "distilling"),
        (2, 20, "distilling"),
    ]


def test_the_best_student_is_a_plain_safetensors_file(
    http: TestClient, house: House, post_job: PostJob, tmp_path: Path, tensors: dict[str, Any]
) -> None:
    lease = house.take_up(post_job())
    keep(house, lease, tmp_path, tensors)
    url = f"/v1/jobs/{lease.job_id}/checkpoints/best"
    answer = http.get(url)
    assert answer.status_code == 200
    weights = load(answer.content)
    assert {name: value.tolist() for name, value in weights.items()} == {
        "0.weight": [[0, 1], [2, 3], [4, 5]],
        "0.bias": [1, 1, 1],
    }
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert http.get(url, headers={"If-None-Match": answer.headers["etag"]}).status_code == 304
    assert http.head(url).status_code == 200
    house.succeed(lease, {"model.safetensors": b"the weights"})
    assert http.get(url).content == b"the weights"


def test_a_damaged_checkpoint_gives_the_one_before(
    http: TestClient, house: House, post_job: PostJob, tmp_path: Path, tensors: dict[str, Any], settings: Any
) -> None:
    lease = house.take_up(post_job())
    keep(house, lease, tmp_path, tensors, number=1)
    key = keep(house, lease, tmp_path, {"other": tensors["rng"]}, number=2)
    stored = settings.data_dir / "storage" / key
    url = f"/v1/jobs/{lease.job_id}/checkpoints/best"
    for damage in (stored.read_bytes(), b"", b"\xff" * 100, b"\x05\0\0\0\0\0\0\0[1,2]", None):
        stored.unlink(missing_ok=True)
        if damage is not None:
            stored.write_bytes(damage)
        answer = http.get(url)
        assert answer.status_code == 200, damage
        assert set(load(answer.content)) == {"0.weight", "0.bias"}


def test_before_a_student_there_is_no_best(
    http: TestClient, house: House, post_job: PostJob, tmp_path: Path, tensors: dict[str, Any]
) -> None:
    lease = house.take_up(post_job())
    keep(house, lease, tmp_path, tensors, phase="training_teacher")
    answer = http.get(f"/v1/jobs/{lease.job_id}/checkpoints/best")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert answer.json()["hint"]
    assert json.loads(answer.content)["detail"].startswith(f"Job {lease.job_id} has no checkpoint")


def test_what_lies_in_the_trash_is_not_tried_again(http: TestClient, house: House, post_job: PostJob) -> None:
    lease = house.take_up(post_job())
    house.fail(lease, WHY)
    url = f"/v1/jobs/{lease.job_id}"
    assert http.delete(url).status_code == 200
    refused = http.post(f"{url}/retry")
    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
    assert "restore" in refused.json()["hint"]
    assert http.post(f"{url}/restore").status_code == 200
    assert http.post(f"{url}/retry").json()["status"] == "queued"
