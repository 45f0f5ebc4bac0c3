"""Submitting, looking at, listing and cancelling jobs, on both databases."""

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from fastapi.testclient import TestClient
from sqlalchemy import event, func, select
from sqlalchemy.exc import OperationalError

from api.cursors import LIFETIME_SECONDS, Cursors
from api.main import create_app
from api.parts import Parts
from api.services import builtins
from core.broker import Doorbell
from core.db import Database
from core.secret import secret_key
from core.settings import Settings
from models import keys, lifecycle
from models.api_key import ApiKeyRow
from models.dataset import DatasetRow
from models.idempotency import IdempotencyRow
from models.job import JobRow
from stillhouse.spec.views import Job, JobError, ValidatedJob
from tests.api.conftest import Traces
from tests.house import SPEC, House

PostJob = Callable[..., str]


def count(database: Database, table: type[JobRow] | type[IdempotencyRow]) -> int:
    with database.read() as session:
        return session.execute(select(func.count()).select_from(table)).scalar_one()


def test_a_posted_job_is_accepted_told_where_it_is_and_rung_for(
    http: TestClient, digits: str, settings: Settings
) -> None:
    answer = http.post("/v1/jobs", json=SPEC | {"name": "first", "labels": {"team": "red"}})
    assert answer.status_code == 202
    job = Job.model_validate_json(answer.content)
    assert answer.headers["location"] == job.urls.self == f"/v1/jobs/{job.id}"
    assert answer.headers["retry-after"] == "1"
    assert (job.status, job.name, job.labels, job.dataset_id) == ("queued", "first", {"team": "red"}, digits)
    bell = Doorbell(settings)
    assert bell.waiting() == 1
    bell.close()


def test_a_job_echoes_the_spec_as_posted_and_every_value_it_resolves_to(http: TestClient, digits: str) -> None:
    job = http.post("/v1/jobs", json=SPEC).json()
    assert job["spec"] == SPEC
    assert "auto" not in json.dumps({k: v for k, v in job["resolved"].items() if k != "resources"})
    assert set(job) == set(Job.model_fields)


def test_a_job_is_the_same_wherever_it_is_read(http: TestClient, post_job: PostJob) -> None:
    job_id = post_job()
    alone = http.get(f"/v1/jobs/{job_id}")
    assert http.get("/v1/jobs").json()["data"] == [alone.json()]


def test_validate_only_tells_what_would_run_and_leaves_nothing(
    http: TestClient, digits: str, traces: Traces, settings: Settings
) -> None:
    before = traces()
    answer = http.post("/v1/jobs?validate_only=true", json=SPEC, headers={"Idempotency-Key": "k"})
    assert answer.status_code == 200
    found = ValidatedJob.model_validate_json(answer.content)
    assert found.resolved.training.batch_size != "auto"
    assert found.estimate.student_parameters == 64 * 8 + 8 + 8 * 10 + 10
    assert found.estimate.teacher_parameters == 64 * 64 + 64 + 64 * 10 + 10
    assert found.estimate.steps > 0
    assert traces() == before
    bell = Doorbell(settings)
    assert bell.waiting() == 0
    bell.close()


def test_validate_only_warns_of_a_student_as_large_as_its_teacher(http: TestClient, digits: str) -> None:
    large = SPEC | {"student": {"name": "mlp", "hidden": [64]}}
    found = http.post("/v1/jobs?validate_only=true", json=large).json()
    assert any("no smaller than the teacher" in warning for warning in found["warnings"])


def test_a_job_is_accepted_while_the_broker_is_away(
    settings: Settings, database: Database, api_key: str, digits: str
) -> None:
    away = settings.model_copy(update={"broker_url": "redis://127.0.0.1:1/0"})
    with TestClient(create_app(away), headers={"Authorization": f"Bearer {api_key}"}) as client:
        answer = client.post("/v1/jobs", json=SPEC)
        assert answer.status_code == 202
        assert client.get(answer.headers["location"]).json()["status"] == "queued"


def test_nobody_is_rung_for_a_job_that_was_not_recorded(
    http: TestClient, digits: str, settings: Settings, traces: Traces
) -> None:
    engine = http.app.state.parts.database.engine  # type: ignore[attr-defined]

    def fail(_conn: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("INSERT INTO idempotency"):
            raise OperationalError(statement, None, Exception("disk gone"))

    before = traces()
    event.listen(engine, "before_cursor_execute", fail)
    answer = http.post("/v1/jobs", json=SPEC, headers={"Idempotency-Key": "once"})
    event.remove(engine, "before_cursor_execute", fail)
    assert answer.status_code == 503
    assert traces() == before
    bell = Doorbell(settings)
    assert bell.waiting() == 0
    bell.close()
    assert http.post("/v1/jobs", json=SPEC, headers={"Idempotency-Key": "once"}).status_code == 202


def test_the_same_key_and_body_give_the_same_job(http: TestClient, digits: str, database: Database) -> None:
    first = http.post("/v1/jobs", json=SPEC, headers={"Idempotency-Key": "once"})
    again = http.post("/v1/jobs", json=SPEC, headers={"Idempotency-Key": "once"})
    assert again.status_code == 202
    assert again.json() == first.json()
    assert again.headers["location"] == first.headers["location"]
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert count(database, JobRow) == 1


def test_a_replayed_answer_shows_the_job_as_it_is_now(http: TestClient, digits: str, house: House) -> None:
    first = http.post("/v1/jobs", json=SPEC, headers={"Idempotency-Key": "once"})
    house.take_up(first.json()["id"])
    assert http.post("/v1/jobs", json=SPEC, headers={"Idempotency-Key": "once"}).json()["status"] == "running"


def test_the_same_key_with_another_body_is_refused(
    http: TestClient, digits: str, database: Database, traces: Traces
) -> None:
    assert http.post("/v1/jobs", json=SPEC, headers={"Idempotency-Key": "once"}).status_code == 202
    before = traces()
    answer = http.post("/v1/jobs", json=SPEC | {"temperature": 2}, headers={"Idempotency-Key": "once"})
    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_mismatch")
    assert answer.json()["hint"]
    assert traces() == before


def test_a_refused_spec_does_not_use_up_its_key(http: TestClient, digits: str) -> None:
    headers = {"Idempotency-Key": "once"}
    assert http.post("/v1/jobs", json=SPEC | {"temperature": 0}, headers=headers).status_code == 422
    assert http.post("/v1/jobs", json=SPEC, headers=headers).status_code == 202


def test_two_projects_may_use_the_same_key(http: TestClient, digits: str, other_key: str) -> None:
    mine = http.post("/v1/jobs", json=SPEC, headers={"Idempotency-Key": "once"}).json()
    theirs = http.post(
        "/v1/jobs", json=SPEC, headers={"Idempotency-Key": "once", "Authorization": f"Bearer {other_key}"}
    )
    assert theirs.status_code == 202
    assert theirs.json()["id"] != mine["id"]


def test_twenty_posts_at_once_with_one_key_make_one_job(http: TestClient, digits: str, database: Database) -> None:
    def post(_: int) -> tuple[int, str]:
        answer = http.post("/v1/jobs", json=SPEC, headers={"Idempotency-Key": "together"})
        return answer.status_code, answer.json()["id"]

    with ThreadPoolExecutor(20) as pool:
        answers = set(pool.map(post, range(20)))
    assert {status for status, _ in answers} == {202}
    assert len({job_id for _, job_id in answers}) == 1
    assert (count(database, JobRow), count(database, IdempotencyRow)) == (1, 1)


def test_an_unchanged_job_is_answered_with_304(http: TestClient, post_job: PostJob, house: House) -> None:
    job_id = post_job()
    first = http.get(f"/v1/jobs/{job_id}")
    etag = first.headers["etag"]
    assert etag.startswith('"')
    for header in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        same = http.get(f"/v1/jobs/{job_id}", headers={"If-None-Match": header})
        assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", etag)
        assert same.headers["retry-after"] == "1"
        assert same.headers["cache-control"] == first.headers["cache-control"] == "private, no-cache"
    lease = house.take_up(job_id)
    changed = http.get(f"/v1/jobs/{job_id}", headers={"If-None-Match": etag})
    assert (changed.status_code, changed.json()["status"]) == (200, "running")
    assert changed.headers["etag"] != etag
    house.advance(lease, step=3)
    later = http.get(f"/v1/jobs/{job_id}", headers={"If-None-Match": changed.headers["etag"]})
    assert (later.status_code, later.json()["progress"]["step"]) == (200, 3)


def test_an_answer_at_hand_is_the_answer_of_the_route(
    http: TestClient, post_job: PostJob, settings: Settings, api_key: str
) -> None:
    url = f"/v1/jobs/{post_job()}"
    for condition in ({}, {"If-None-Match": http.get(url).headers["etag"]}):
        headers = {"Authorization": f"Bearer {api_key}", "X-Request-Id": "same"} | condition
        with TestClient(create_app(settings), headers=headers) as fresh:
            first, second = fresh.get(url), fresh.get(url)
        assert (first.status_code, first.content) == (second.status_code, second.content)
        kept = [{name: value for name, value in a.headers.items() if name != "ratelimit"} for a in (first, second)]
        assert kept[0] == kept[1]


def test_a_renewed_lease_is_no_change(http: TestClient, post_job: PostJob, house: House, database: Database) -> None:
    lease = house.take_up(post_job())
    etag = http.get(f"/v1/jobs/{lease.job_id}").headers["etag"]
    with database.write() as session:
        assert lifecycle.renew(session, lease, lease_seconds=900)
    assert http.get(f"/v1/jobs/{lease.job_id}", headers={"If-None-Match": etag}).status_code == 304


def test_a_finished_job_asks_nobody_to_come_again(http: TestClient, post_job: PostJob, house: House) -> None:
    lease = house.take_up(post_job())
    house.succeed(lease, {"model.onnx": b"onnx"}, verdict="passed")
    answer = http.get(f"/v1/jobs/{lease.job_id}")
    job = Job.model_validate_json(answer.content)
    assert "retry-after" not in answer.headers
    assert (job.status, job.verdict) == ("succeeded", "passed")
    assert job.report is not None
    assert job.finished_at is not None


def test_a_failed_job_says_why(http: TestClient, post_job: PostJob, house: House) -> None:
    lease = house.take_up(post_job())
    house.fail(lease, JobError(code="loss_not_finite", detail="The loss became NaN.", hint="Lower the rate."))
    job = http.get(f"/v1/jobs/{lease.job_id}").json()
    assert job["status"] == "failed"
    assert job["error"] == {"code": "loss_not_finite", "detail": "The loss became NaN.", "hint": "Lower the rate."}


def test_an_unknown_key_is_refused_although_the_job_is_cached(
    http: TestClient, post_job: PostJob, database: Database, api_key: str
) -> None:
    path = f"/v1/jobs/{post_job()}"
    assert http.get(path).status_code == 200
    with database.write() as session:
        row = session.scalars(select(ApiKeyRow).where(ApiKeyRow.digest == keys.digest(api_key))).one()
        assert keys.revoke(session, row.id)
    assert http.get(path).status_code == 401


def test_pages_are_complete_and_stable_while_jobs_arrive(http: TestClient, post_job: PostJob) -> None:
    made = [post_job() for _ in range(7)]
    seen: list[str] = []
    query = "limit=3"
    while True:
        page = http.get(f"/v1/jobs?{query}").json()
        seen += [job["id"] for job in page["data"]]
        post_job()
        if not page["has_more"]:
            assert page["next_cursor"] is None
            break
        query = f"limit=3&after={page['next_cursor']}"
    assert seen == made[::-1]


def test_lists_can_be_filtered(http: TestClient, post_job: PostJob, house: House) -> None:
    plain = post_job(name="plain")
    red = post_job(name="red", labels={"team": "red", "a.b/c": "1"})
    both = post_job(name="red", labels={"team": "red", "stage": "x:y"})
    house.take_up(red)

    def listed(query: str) -> list[str]:
        answer = http.get(f"/v1/jobs?{query}")
        assert answer.status_code == 200, answer.text
        return [job["id"] for job in answer.json()["data"]]

    assert listed("name=red") == [both, red]
    assert listed("label=team:red") == [both, red]
    assert listed("label=team:red&label=stage:x:y") == [both]
    assert listed("label=a.b/c:1") == [red]
    assert listed("label=team:blue") == []
    assert listed("status=running") == [red]
    assert listed("status=queued") == [both, plain]
    assert listed("status=queued,running&limit=2") == [both, red]
    assert listed("status=queued&status=running&name=plain") == [plain]
    assert listed("status=cancelled") == []


def test_a_cursor_serves_its_own_list_and_project_only(http: TestClient, post_job: PostJob, other_key: str) -> None:
    post_job()
    post_job()
    cursor = http.get("/v1/jobs?limit=1").json()["next_cursor"]
    assert http.get(f"/v1/jobs?after={cursor}").status_code == 200
    assert http.get(f"/v1/datasets?after={cursor}").status_code == 422
    stranger = {"Authorization": f"Bearer {other_key}"}
    assert http.get(f"/v1/jobs?after={cursor}", headers=stranger).status_code == 422


def test_an_expired_cursor_is_gone(http: TestClient, post_job: PostJob, settings: Settings, project: str) -> None:
    old = Cursors(secret_key(settings), clock=lambda: time.time() - LIFETIME_SECONDS - 5)
    answer = http.get("/v1/jobs", params={"after": old.issue(project, "jobs", post_job())})
    assert (answer.status_code, answer.json()["code"]) == (410, "gone")
    assert answer.json()["hint"]


def test_a_waiting_job_is_cancelled_at_once_and_for_good(http: TestClient, post_job: PostJob) -> None:
    job_id = post_job()
    for _ in range(3):
        answer = http.post(f"/v1/jobs/{job_id}/cancel")
        assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
    assert http.get(f"/v1/jobs/{job_id}").json()["status"] == "cancelled"


def test_a_running_job_is_cancelling_until_its_worker_lets_go(
    http: TestClient, post_job: PostJob, house: House
) -> None:
    lease = house.take_up(post_job())
    for _ in range(2):
        answer = http.post(f"/v1/jobs/{lease.job_id}/cancel")
        assert (answer.status_code, answer.json()["status"]) == (202, "cancelling")
    house.cancelled(lease)
    answer = http.post(f"/v1/jobs/{lease.job_id}/cancel")
    assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")


def test_a_job_that_is_over_cannot_be_cancelled(http: TestClient, post_job: PostJob, house: House) -> None:
    done, failed = house.take_up(post_job()), house.take_up(post_job())
    house.succeed(done, {"model.onnx": b"x"})
    house.fail(failed, JobError(code="engine_fault", detail="It broke.", hint="Tell us."))
    for lease, status in ((done, "succeeded"), (failed, "failed")):
        answer = http.post(f"/v1/jobs/{lease.job_id}/cancel")
        assert (answer.status_code, answer.json()["code"]) == (409, "job_finished")
        assert status in answer.json()["detail"]


def test_many_cancels_at_once_agree(http: TestClient, post_job: PostJob, house: House) -> None:
    lease = house.take_up(post_job())

    def cancel(_: int) -> int:
        return int(http.post(f"/v1/jobs/{lease.job_id}/cancel").status_code)

    with ThreadPoolExecutor(10) as pool:
        assert set(pool.map(cancel, range(20))) == {202}
    events = http.get(f"/v1/jobs/{lease.job_id}/events?type=cancel_requested").json()["data"]
    assert len(events) == 1


def test_the_first_jobs_of_a_project_store_the_builtin_data_once(
    http: TestClient, database: Database, settings: Settings
) -> None:
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: http.post("/v1/jobs", json=SPEC), range(4)))
    assert [answer.status_code for answer in answers] == [202] * 4
    assert len({answer.json()["dataset_id"] for answer in answers}) == 1
    with database.read() as session:
        row = session.scalars(select(DatasetRow)).one()
    stored = [path.name for path in (settings.data_dir / "storage").rglob("*") if path.is_file()]
    assert stored == [f"{row.id}.safetensors"]
    assert list((settings.work_dir / "uploads").iterdir()) == []


def test_two_processes_that_race_for_builtin_data_leave_one_row_and_one_file(
    settings: Settings, database: Database, project: str
) -> None:
    apps = [create_app(settings), create_app(settings)]
    with TestClient(apps[0]), TestClient(apps[1]):

        def store(parts: Parts) -> str:
            # Past the lock that keeps the threads of one process apart, as another process is.
            return builtins._store(parts, project, "digits").id

        with ThreadPoolExecutor(2) as pool:
            ids = set(pool.map(store, [app.state.parts for app in apps]))
    assert len(ids) == 1
    with database.read() as session:
        assert [row.id for row in session.scalars(select(DatasetRow))] == list(ids)
    stored = [path.name for path in (settings.data_dir / "storage").rglob("*") if path.is_file()]
    assert stored == [f"{next(iter(ids))}.safetensors"]


def test_a_students_model_can_teach_the_next_job(http: TestClient, post_job: PostJob, house: House) -> None:
    lease = house.take_up(post_job())
    house.succeed(lease, {"model.safetensors": b"w"})
    model_id = http.get(f"/v1/jobs/{lease.job_id}").json()["student_model_id"]
    answer = http.post("/v1/jobs", json=SPEC | {"teacher": {"model": model_id}})
    assert answer.status_code == 202, answer.text
    estimate = http.post("/v1/jobs?validate_only=true", json=SPEC | {"teacher": {"model": model_id}}).json()
    assert estimate["estimate"]["teacher_parameters"] == 610
