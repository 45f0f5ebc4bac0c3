"""A path or a query with something else where an id belongs says what belongs there."""

import pytest
from fastapi.testclient import TestClient

from stillhouse.spec.ids import Prefix, new_id


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    return sqlite_url


PLACES: list[tuple[Prefix, str, str]] = [
    ("job", "GET", "/v1/jobs/{}"),
    ("job", "DELETE", "/v1/jobs/{}"),
    ("job", "POST", "/v1/jobs/{}/cancel"),
    ("job", "GET", "/v1/jobs/{}/metrics"),
    ("ds", "GET", "/v1/datasets/{}"),
    ("ds", "POST", "/v1/datasets/{}/restore"),
    ("ds", "GET", "/v1/students?dataset={}"),
    ("mdl", "GET", "/v1/models/{}"),
    ("mdl", "DELETE", "/v1/models/{}"),
    ("key", "GET", "/v1/keys/{}"),
    ("out", "DELETE", "/v1/teacher-outputs/{}"),
]
NOUNS = {"job": "job", "ds": "dataset", "mdl": "model", "key": "key", "out": "set of teacher outputs"}
LISTS = {"job": "jobs", "ds": "datasets", "mdl": "models", "key": "keys", "out": "teacher-outputs"}


@pytest.mark.parametrize(("prefix", "method", "path"), PLACES)
def test_what_is_no_id_of_the_kind_is_answered_with_what_is(
    http: TestClient, prefix: Prefix, method: str, path: str
) -> None:
    other: Prefix = "mdl" if prefix == "ds" else "ds"
    for given, confused in (("foo", ""), (new_id(other), f", not that of a {NOUNS[other]}")):
        answer = http.request(method, path.format(given))
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
        assert f": give the id of a {NOUNS[prefix]}{confused}, such as {prefix}_" in answer.json()["detail"]
        assert answer.json()["hint"] == f"GET /v1/{LISTS[prefix]} lists yours."


@pytest.mark.parametrize(("prefix", "method", "path"), PLACES)
def test_an_id_that_names_nothing_is_told_back(http: TestClient, prefix: Prefix, method: str, path: str) -> None:
    id = new_id(prefix)
    assert http.request(method, path.format(id)).json()["detail"] == f"There is no {NOUNS[prefix]} {id}."
