"""Who may see what: nobody without a key, and nobody what belongs to somebody else."""

import json
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from fastapi.testclient import TestClient

from api.main import create_app
from core.db import Database
from core.settings import Settings
from models import keys
from stillhouse.spec.ids import ID_PATTERN
from stillhouse.spec.keys import SCOPES
from tests.api.test_teacher_outputs import keep
from tests.house import SPEC, House

OPEN = {"/healthz", "/readyz", "/version", "/openapi.json"}
"""Paths that answer everybody."""


NO_SUCH = {
    "job_id": "job_" + "0" * 26,
    "dataset_id": "ds_" + "0" * 26,
    "model_id": "mdl_" + "0" * 26,
    "output_id": "out_" + "0" * 26,
    "key_id": "key_" + "0" * 26,
}
"""Ids of the right form that nobody has."""
ADMINISTRATIVE = re.compile(r"/v1/(keys(?!/me)|secrets|webhook-secret|audit)")
"""Paths that are for administrators, by name: what the app declares is held against this."""


def routes(app: FastAPI) -> Iterator[tuple[str, str]]:
    """(method, path) of every operation of the OpenAPI document."""
    for path, operations in app.openapi()["paths"].items():
        for method in operations:
            yield method.upper(), path


def needed_scope(method: str, path: str) -> str:
    """What a caller would expect."""
    if ADMINISTRATIVE.match(path):
        return "admin"
    return "read" if method == "GET" else "write"


def ask_as_nobody(client: TestClient, app: FastAPI, headers: dict[bytes, bytes]) -> int:
    """Call every route that is not open; each must ask for a key. Returns how many there are."""
    asked = 0
    for method, path in routes(app):
        answer = client.request(method, path.format(**NO_SUCH, name="x"), headers=headers)
        if path in OPEN:
            assert answer.status_code in (200, 503), path
            continue
        asked += 1
        assert (answer.status_code, answer.json().get("code")) == (401, "unauthorized"), (method, path)
        assert answer.headers["www-authenticate"] == "Bearer"
    return asked


@pytest.fixture
def paths(http: TestClient, post_job: Callable[..., str], house: House, tmp_path: Path) -> dict[str, str]:
    """Values for the parameters of paths: things the project really has."""
    lease = house.take_up(post_job(labels={"secret": "canary"}))
    house.succeed(lease, {"model.onnx": b"canary"})
    job = http.get(f"/v1/jobs/{lease.job_id}").json()
    keep(house, post_job(), job["dataset_id"], tmp_path)
    return {
        "key_id": http.get("/v1/keys/me").json()["key"]["id"],
        "job_id": lease.job_id,
        "name": "model.onnx",
        "dataset_id": job["dataset_id"],
        "model_id": job["student_model_id"],
        "output_id": http.get("/v1/teacher-outputs").json()["data"][0]["id"],
    }


def test_the_walk_misses_no_route(app: FastAPI) -> None:
    served = {
        (method, str(context.path))
        for context in iter_route_contexts(app.routes)
        for method in (context.methods or set()) - {"HEAD"}
    }
    assert served - set(routes(app)) == {("GET", "/openapi.json")}
    assert len(served) >= 30


def test_a_route_that_forgets_to_ask_for_a_key_fails_the_walk(settings: Settings) -> None:
    app = create_app(settings)

    @app.get("/v1/jobs/{job_id}/leak")
    def leak(job_id: str) -> dict[str, str]:
        return {"job": job_id}

    with TestClient(app) as client, pytest.raises(AssertionError, match="leak"):
        ask_as_nobody(client, app, {})


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Bearer ", "Basic c2hrOg==", "Bearer nonsense", "Bearer shk_" + "A" * 40, "shk_x", "Bearer ä"],
)
def test_every_other_route_asks_for_a_key(
    anyone: TestClient, app: FastAPI, database: Database, authorization: str | None
) -> None:
    headers = {} if authorization is None else {b"Authorization": authorization.encode()}
    assert ask_as_nobody(anyone, app, headers) >= 28


@pytest.mark.parametrize("held", SCOPES)
def test_every_route_asks_for_its_scope_and_says_which(
    anyone: TestClient, app: FastAPI, database: Database, project: str, held: Any
) -> None:
    """A refusal names the scope that is missing; a key that has it gets further."""
    with database.write() as session:
        headers = {"Authorization": f"Bearer {keys.issue(session, project, name='test', scope=held)}"}
    order, refused = list(SCOPES), 0
    for method, path in routes(app):
        if path in OPEN:
            continue
        needed = needed_scope(method, path)
        assert app.openapi()["paths"][path][method.lower()]["security"] == [{"key": [needed]}], path
        answer = anyone.request(method, path.format(**NO_SUCH, name="x"), headers=headers)
        if order.index(held) >= order.index(needed):
            assert answer.status_code not in (401, 403), (method, path)
            continue
        refused += 1
        problem = answer.json()
        assert (answer.status_code, problem["code"]) == (403, "forbidden"), (method, path)
        assert f"a key with the scope {needed}" in problem["detail"]
        assert [e["code"] for e in problem["errors"]] == [f"needs_{needed}"]
        assert answer.headers["www-authenticate"] == f'Bearer error="insufficient_scope", scope="{needed}"'
    assert (refused == 0) == (held == "admin")


def test_a_key_with_a_right_checksum_that_was_never_issued_opens_nothing(anyone: TestClient) -> None:
    forged = f"shk_{'A' * 32}{zlib.crc32(b'A' * 32):08x}"
    assert keys.well_formed(forged)
    for path in ("/v1/jobs", "/v1/jobs/job_" + "0" * 26):
        assert anyone.get(path, headers={"Authorization": f"Bearer {forged}"}).status_code == 401


def test_a_key_in_the_query_is_no_key(anyone: TestClient, api_key: str) -> None:
    assert anyone.get(f"/v1/jobs?key={api_key}").status_code == 401


def test_the_scheme_may_be_written_in_any_case(anyone: TestClient, api_key: str) -> None:
    assert anyone.get("/v1/jobs", headers={"Authorization": f"bearer  {api_key}"}).status_code == 200


def test_foreign_things_are_not_there_on_any_route(
    anyone: TestClient, app: FastAPI, paths: dict[str, str], other_key: str
) -> None:
    stranger = {"Authorization": f"Bearer {other_key}"}
    walked = 0
    for method, path in routes(app):
        if "{" not in path or (method, path) == ("PUT", "/v1/secrets/{name}"):
            continue  # what is put there is the stranger's own (tests/api/test_secrets.py)
        walked += 1
        for headers in (stranger, stranger | {"Accept": "text/event-stream"}, stranger | {"If-None-Match": "*"}):
            foreign = anyone.request(method, path.format(**paths), headers=headers)
            assert (foreign.status_code, foreign.json()["code"]) == (404, "not_found"), path
            assert "canary" not in foreign.text
        missing = anyone.request(method, path.format(**paths | NO_SUCH), headers=stranger)
        assert answer_without_ids(foreign) == answer_without_ids(missing)
    assert walked >= 10


def answer_without_ids(answer: Any) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(answer.text)
    return body | {"detail": ID_PATTERN.sub("…", body["detail"]), "request_id": None}


def test_foreign_things_are_in_no_list(anyone: TestClient, paths: dict[str, str], other_key: str) -> None:
    stranger = {"Authorization": f"Bearer {other_key}"}
    for path in ("/v1/jobs", "/v1/datasets", "/v1/models", "/v1/teacher-outputs", "/v1/jobs?label=secret:canary"):
        assert anyone.get(path, headers=stranger).json()["data"] == []


def test_foreign_datasets_and_teachers_are_unknown_in_a_spec(
    anyone: TestClient, paths: dict[str, str], other_key: str
) -> None:
    stranger = {"Authorization": f"Bearer {other_key}"}
    by_data = SPEC | {"dataset": {"id": paths["dataset_id"]}}
    by_teacher = SPEC | {"teacher": {"model": paths["model_id"]}}
    for spec, pointer in ((by_data, "/dataset/id"), (by_teacher, "/teacher/model")):
        answer = anyone.post("/v1/jobs", json=spec, headers=stranger)
        assert answer.status_code == 422
        assert [e["pointer"] for e in answer.json()["errors"]] == [pointer]


@pytest.mark.parametrize(
    "job_id",
    ["0", "-1", "%2e%2e%2f", "%252e%252e%252f", "JOB_" + "0" * 26, "job_" + "o" * 26, "%00", "job_" + "0" * 26 + "%0a",
     "%20" * 36, "job_" + "0" * 25 + "%ff", "x" * 3000],
)  # fmt: skip
def test_an_id_of_no_form_is_not_there(http: TestClient, job_id: str) -> None:
    for path in (f"/v1/jobs/{job_id}", f"/v1/jobs/{job_id}/events", f"/v1/datasets/{job_id}", f"/v1/models/{job_id}"):
        assert http.get(path).status_code == 404


def test_a_host_header_cannot_change_the_path(anyone: TestClient) -> None:
    for host in ("evil/healthz?x=", "evil/version", "x:80/healthz#"):
        assert anyone.get("/v1/jobs", headers={"Host": host}).status_code == 401
