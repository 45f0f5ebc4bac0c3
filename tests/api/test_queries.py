"""Query parameters and headers that must be refused, each named."""

from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient

PostJob = Callable[..., str]
STREAM = {"Accept": "text/event-stream"}


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    return sqlite_url


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("limit=0", "?limit"),
        ("limit=101", "?limit"),
        ("limit=many", "?limit"),
        ("status=done", "?status"),
        ("status=", "?status"),
        ("label=team", "?label"),
        ("label=te%00am:red", "?label"),
        ("label=team:%00", "?label"),
        ("label='):x", "?label"),
        ("name=%00", "?name"),
        ("sort=password", "?sort"),
        ("after=x", "?after"),
        ("after=%00", "?after"),
        ("after=" + "A" * 100, "?after"),
        ("after=" + "A" * 501, "?after"),
        ("after=ä", "?after"),
    ],
)
def test_a_wrong_query_is_named(http: TestClient, query: str, pointer: str) -> None:
    answer = http.get(f"/v1/jobs?{query}")
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid")
    assert [e["pointer"] for e in answer.json()["errors"]] == [pointer]


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("after=-1", "?after"),
        ("after=99999999999", "?after"),
        ("limit=0", "?limit"),
        ("limit=1001", "?limit"),
        ("type=secret", "?type"),
        ("page=2", "?page"),
    ],
)
def test_a_wrong_query_for_events_is_named(http: TestClient, post_job: PostJob, query: str, pointer: str) -> None:
    answer = http.get(f"/v1/jobs/{post_job()}/events?{query}")
    assert answer.status_code == 422
    assert [e["pointer"] for e in answer.json()["errors"]] == [pointer]


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("max_points=1", "?max_points"),
        ("max_points=1000000", "?max_points"),
        ("first_step=-1", "?first_step"),
        ("last_step=3000000000", "?last_step"),
        ("names=a%00", "?names"),
        ("names=", "?names"),
        ("step=4", "?step"),
    ],
)
def test_a_wrong_query_for_metrics_is_named(http: TestClient, post_job: PostJob, query: str, pointer: str) -> None:
    answer = http.get(f"/v1/jobs/{post_job()}/metrics?{query}")
    assert answer.status_code == 422
    assert [e["pointer"] for e in answer.json()["errors"]] == [pointer]


@pytest.mark.parametrize("header", ["-1", "1e309", "99999999999", "x", "1 2"])
def test_a_stream_cannot_begin_at_what_is_no_number(http: TestClient, post_job: PostJob, header: str) -> None:
    answer = http.get(f"/v1/jobs/{post_job()}/events", headers=STREAM | {"Last-Event-ID": header})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "header:Last-Event-ID")
