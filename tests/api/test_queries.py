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
    ("path", "pointer"),
    [
        ("/v1/jobs?limit=5&limit=6", "?limit"),
        ("/v1/datasets?deleted=true&deleted=false", "?deleted"),
        ("/v1/usage?month=2026-11", "?month"),
        ("/v1/losses?limit=2", "?limit"),
        ("/v1/keys/me?x", "?x"),
    ],
)
def test_what_a_route_does_not_have_or_has_once_is_named_on_every_route(
    http: TestClient, path: str, pointer: str
) -> None:
    answer = http.get(path)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid")
    assert [e["pointer"] for e in answer.json()["errors"]] == [pointer]


def test_a_query_is_wrong_for_a_job_that_is_at_hand_too(http: TestClient, post_job: PostJob) -> None:
    job = f"/v1/jobs/{post_job()}"
    assert [http.get(job).status_code, http.get(job).status_code] == [200, 200]
    assert [e["pointer"] for e in http.get(f"{job}?fields=status").json()["errors"]] == ["?fields"]


def test_a_query_is_looked_at_when_the_key_is_good(http: TestClient) -> None:
    assert http.get("/v1/usage?month=2026-11", headers={"Authorization": "Bearer shk_x"}).status_code == 401


def test_a_parameter_of_another_spelling_is_told_which_was_meant(http: TestClient) -> None:
    answer = http.post("/v1/datasets?name=t&label=a&unlabeled=keep", content=b"a,label\n1,x\n")
    assert [e["detail"] for e in answer.json()["errors"]] == ["There is no such field; did you mean unlabelled?"]


def test_a_parameter_that_takes_several_values_may_come_more_than_once(http: TestClient) -> None:
    assert http.get("/v1/jobs?status=queued&status=running&label=a:b&label=c:d").status_code == 200


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
