"""What every answer has, what an error looks like, and what never leaves the service."""

import json
import re
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from structlog.testing import capture_logs

import stillhouse
from api import keys as keys_command
from api import openapi
from api.main import create_app
from core.db import Database
from core.settings import Settings
from models import keys, migrate, verbs, workers
from models.scheduling import Machine
from stillhouse.spec import LOSSES, STUDENTS
from stillhouse.spec.errors import Problem
from tests.house import SPEC

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    return sqlite_url


def problem_of(answer: Any) -> Problem:
    assert answer.headers["content-type"] == "application/problem+json"
    problem = Problem.model_validate_json(answer.content)
    assert problem.status == answer.status_code
    assert problem.type == f"urn:stillhouse:error:{problem.code}"
    assert problem.request_id == answer.headers["x-request-id"]
    return problem


def test_every_answer_has_a_request_id_and_the_security_headers(http: TestClient) -> None:
    for method, path in (("GET", "/healthz"), ("GET", "/v1/jobs"), ("GET", "/nowhere"), ("PUT", "/v1/jobs")):
        answer = http.request(method, path)
        assert re.fullmatch(r"req_[0-9a-f]{24}", answer.headers["x-request-id"])
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
        assert "server" not in answer.headers


def test_two_answers_have_two_request_ids(http: TestClient) -> None:
    assert http.get("/healthz").headers["x-request-id"] != http.get("/healthz").headers["x-request-id"]


@pytest.mark.parametrize(
    ("given", "kept"),
    [("abc-123_X", True), ("x" * 64, True), ("x" * 65, False), ("a b", False), ("a\u00e4", False), ("", False)],
)
def test_a_callers_request_id_is_kept_when_it_has_the_form_of_one(http: TestClient, given: str, kept: bool) -> None:
    answer = http.get("/nowhere", headers={b"X-Request-Id": given.encode("latin-1")})
    assert (answer.headers["x-request-id"] == given) is kept
    problem_of(answer)


def test_an_unknown_path_is_a_problem(http: TestClient) -> None:
    for path in ("/", "/v1", "/v2/jobs", "/v1/jobs/", "/docs", "/redoc", "/v1/jobs/x/y/z"):
        assert problem_of(http.get(path, follow_redirects=False)).code == "not_found"


def test_another_method_is_a_problem_that_names_the_right_ones(http: TestClient) -> None:
    for method, path in (("DELETE", "/v1/jobs"), ("POST", "/v1/jobs/job_" + "0" * 26), ("TRACE", "/healthz")):
        answer = http.request(method, path)
        assert problem_of(answer).code == "method_not_allowed"
        assert answer.headers["allow"]


def test_the_allow_header_names_all_methods_of_a_path_whichever_route_has_them(http: TestClient) -> None:
    for path, methods in (
        ("/v1/jobs", "GET, HEAD, POST"),
        ("/v1/jobs/job_" + "0" * 26, "DELETE, GET, HEAD"),
        ("/v1/jobs/x/cancel", "POST"),
        ("/v1/keys/me", "GET, HEAD"),
        ("/healthz", "GET, HEAD"),
    ):
        assert http.request("OPTIONS", path).headers["allow"] == methods


def test_a_method_override_is_not_obeyed(http: TestClient, digits: str) -> None:
    answer = http.post("/v1/jobs", json=SPEC, headers={"X-HTTP-Method-Override": "GET"})
    assert answer.status_code == 202


def test_no_origin_is_allowed_to_read(http: TestClient) -> None:
    for origin in ("null", "https://evil.example"):
        answer = http.get("/v1/jobs", headers={"Origin": origin})
        assert not [name for name in answer.headers if name.startswith("access-control")]


def test_what_an_unforeseen_exception_says_stays_in_the_log(
    http: TestClient, digits: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_args: object, **_kwargs: object) -> None:
        raise RuntimeError("secret detail")

    job = http.post("/v1/jobs", json=SPEC).json()
    monkeypatch.setattr(verbs, "request_cancel", broken)
    with capture_logs() as logs:
        answer = http.post(f"/v1/jobs/{job['id']}/cancel", headers={"X-Request-Id": "find-me"})
    assert problem_of(answer).code == "server_fault"
    assert "secret" not in answer.text
    found = [entry for entry in logs if entry.get("request_id") == "find-me"]
    assert "secret detail" in found[0]["traceback"]
    assert "Bearer" not in json.dumps(found)


def test_a_database_that_is_away_is_an_outage_and_not_our_fault(settings: Settings, tmp_path: Path) -> None:
    key = f"shk_{'A' * 32}"
    key += f"{zlib.crc32(b'A' * 32):08x}"
    away = settings.model_copy(update={"database_url": "postgresql+psycopg://x:secret@127.0.0.1:1/x"})
    with TestClient(create_app(away), raise_server_exceptions=False) as client:
        client.headers["Authorization"] = f"Bearer {key}"
        for path in ("/v1/jobs", "/v1/jobs/job_" + "0" * 26, "/v1/students"):
            answer = client.get(path)
            problem = problem_of(answer)
            assert (answer.status_code, problem.code) == (503, "unavailable")
            assert answer.headers["retry-after"] == "2"
            assert "secret" not in answer.text
            assert "127.0.0.1" not in answer.text
        assert client.get("/version").json()["database_revision"] is None
        assert client.get("/healthz").status_code == 200


def test_a_poll_that_meets_a_locked_database_waits_in_a_thread(http: TestClient, digits: str, app: FastAPI) -> None:
    job = http.post("/v1/jobs", json=SPEC).json()
    # What a locked database says is hard to come by with a write-ahead log; an interrupted statement says the same.
    app.state.parts.glances._local._connection.set_progress_handler(lambda: 1, 1)
    assert http.get(f"/v1/jobs/{job['id']}").json() == job
    assert http.get("/v1/jobs/job_" + "0" * 26).status_code == 404


def test_readiness_counts_the_workers_whose_heartbeat_is_fresh(http: TestClient, database: Database) -> None:
    with database.write() as session:
        workers.register(session, "wrk_1", host="h", pid=1, machine=Machine(cuda=False, memory_bytes=1, cores=1))
    answer = http.get("/readyz")
    assert answer.status_code == 200
    assert answer.json() == {
        "ready": True,
        "checks": {"database": "ok", "broker": "ok", "storage": "ok"},
        "workers": 1,
    }
    assert http.get("/readyz").headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("broker", {"broker_url": "redis://127.0.0.1:1/0"}),
        ("storage", {"storage_url": "file:///proc/none"}),
        ("database", {"database_url": "postgresql+psycopg://x@127.0.0.1:1/x"}),
    ],
)
def test_readiness_is_503_while_a_part_is_down(settings: Settings, part: str, change: dict[str, str]) -> None:
    with TestClient(create_app(Settings(**(settings.model_dump() | change)))) as client:
        answer = client.get("/readyz")
        assert answer.status_code == 503
        assert answer.json()["ready"] is False
        assert [name for name, found in answer.json()["checks"].items() if found != "ok"] == [part]
        assert "127.0.0.1" not in answer.text


def test_a_database_that_was_never_migrated_is_not_ready(settings: Settings, tmp_path: Path) -> None:
    empty = settings.model_copy(update={"database_url": f"sqlite:///{tmp_path / 'empty.db'}"})
    with TestClient(create_app(empty)) as client:
        answer = client.get("/readyz")
        assert (answer.status_code, answer.json()["checks"]["broker"]) == (503, "ok")
        assert "migrated" in answer.json()["checks"]["database"]


def test_version_tells_code_and_schema(anyone: TestClient) -> None:
    assert anyone.get("/version").json() == {
        "version": stillhouse.__version__,
        "api": "v1",
        "database_revision": migrate.head(),
    }


def test_the_catalogues_hold_every_student_and_loss_with_its_schema(http: TestClient) -> None:
    students, losses = http.get("/v1/students").json()["data"], http.get("/v1/losses").json()["data"]
    assert [entry["name"] for entry in students] == list(STUDENTS)
    assert [entry["name"] for entry in losses] == list(LOSSES)
    for entry in students + losses:
        assert entry["summary"]
        assert entry["tasks"]
        assert entry["json_schema"]["type"] == "object"
    assert students[1]["tasks"] == ["image-classification"]


def test_the_description_under_version_control_is_that_of_the_code(app: FastAPI) -> None:
    kept = (DOCS / "openapi.json").read_text(encoding="utf-8")
    assert openapi.text(app) == kept, "run: python -m api.openapi docs/openapi.json"


def test_the_description_declares_errors_bodies_and_names(anyone: TestClient) -> None:
    document = anyone.get("/openapi.json").json()
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    names = [operation["operationId"] for operation in operations]
    assert len(set(names)) == len(names)
    assert {"create_job", "get_job", "list_jobs", "create_dataset", "get_artifact"} <= set(names)
    guarded = [op for path, ops in document["paths"].items() if path.startswith("/v1") for op in ops.values()]
    for operation in guarded:
        assert [*operation["security"][0]] == ["key"]
        assert operation["security"][0]["key"][0] in ("read", "write", "admin")
        assert list(operation["responses"]["401"]["content"]) == ["application/problem+json"]
    body = document["paths"]["/v1/jobs"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body == {"$ref": "#/components/schemas/JobSpec"}
    assert set(document["components"]["schemas"]["JobSpec"]["required"]) == {"teacher", "dataset", "student"}
    assert "HTTPValidationError" not in json.dumps(document)


def test_the_process_loads_no_heavy_library() -> None:
    script = "import sys, api.__main__; api.__main__.create_app(); print(*sys.modules, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    heavy = {"torch", "distill", "ingest", "sklearn", "pyarrow", "numpy", "PIL", "onnx", "onnxruntime", "alembic"}
    assert loaded & heavy == set()


def test_keys_are_made_shown_once_listed_and_revoked(
    settings: Settings, database: Database, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STILLHOUSE_DATABASE_URL", settings.resolved_database_url)
    assert keys_command.main(["create", "--project", "lab", "--name", "ci"]) == 0
    key = capsys.readouterr().out.strip()
    with TestClient(create_app(settings), headers={"Authorization": f"Bearer {key}"}) as client:
        assert client.get("/v1/jobs").status_code == 200
        assert keys_command.main(["list"]) == 0
        listed = capsys.readouterr().out
        assert key not in listed
        assert "active  write  " in listed
        assert "lab  ci" in listed
        key_id = listed.split()[0]
        assert keys_command.main(["revoke", key_id]) == 0
        assert client.get("/v1/jobs").status_code == 401
        assert client.get("/v1/jobs/job_" + "0" * 26).status_code == 401
    assert keys_command.main(["revoke", key_id]) == 1
    assert "no active key" in capsys.readouterr().err
    assert keys_command.main(["list"]) == 0
    assert "revoked" in capsys.readouterr().out
    with database.read() as session:
        assert keys.shown(session, key) is None


def test_a_project_or_key_with_a_name_nobody_can_type_is_refused(
    settings: Settings, database: Database, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STILLHOUSE_DATABASE_URL", settings.resolved_database_url)
    for project, name in (("../x", "ci"), ("lab", "x" * 101), ("", "ci")):
        assert keys_command.main(["create", "--project", project, "--name", name]) == 1
        assert "Names have" in capsys.readouterr().err


def test_keys_on_a_database_without_tables_fail_with_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = tmp_path / "empty.db"
    empty.touch()
    monkeypatch.setenv("STILLHOUSE_DATABASE_URL", f"sqlite:///{empty}")
    assert keys_command.main(["create", "--name", "x"]) == 1
    assert "migrated" in capsys.readouterr().err
