"""Secrets over HTTP, on both databases: stored, listed, replaced, deleted, named in specs; never shown."""

import json
from typing import Any

import pytest
from fastapi.testclient import TestClient

from core.db import Database
from core.sealing import Sealer
from core.settings import Settings
from models import keys, project_secrets
from models.secret import SecretRow
from stillhouse.spec.secret import MAX_SECRETS
from tests.house import SPEC

TOKEN = "hf_CanaryToken0123456789"
ASKING = {"name": "timm/test_vit", "pretrained": True, "input_size": 160}


def asking(**student: Any) -> dict[str, Any]:
    return SPEC | {"student": ASKING | student}


def test_a_secret_is_stored_replaced_listed_and_deleted_and_never_shown(
    http: TestClient, database: Database, settings: Settings, project: str
) -> None:
    made = http.put("/v1/secrets/hub", json={"value": "first"})
    assert made.status_code == 200
    again = http.put("/v1/secrets/hub", json={"value": TOKEN})
    assert again.json()["created_at"] == made.json()["created_at"]
    assert again.json()["updated_at"] > made.json()["updated_at"]
    listed = http.get("/v1/secrets")
    assert listed.json()["data"] == [again.json()]
    assert set(again.json()) == {"object", "name", "created_at", "updated_at", "last_used_at"}
    entries = http.get("/v1/audit?target=hub").json()["data"]
    assert [entry["action"] for entry in entries] == ["put_secret", "put_secret"]
    with database.write() as session:
        row = session.get_one(SecretRow, (project, "hub"))
        assert TOKEN not in row.sealed
        opened = project_secrets.opened(session, Sealer.of(settings), project, ["hub", "none"])
        assert opened == {"hub": TOKEN}
    assert http.get("/v1/secrets").json()["data"][0]["last_used_at"] is not None
    assert TOKEN not in made.text + again.text + listed.text + json.dumps(entries)
    assert http.delete("/v1/secrets/hub").status_code == 204
    assert http.delete("/v1/secrets/hub").status_code == 404
    assert http.get("/v1/secrets").json()["data"] == []


def test_a_sealed_secret_opens_in_its_own_row_alone(
    http: TestClient, database: Database, settings: Settings, project: str
) -> None:
    for name in ("one", "two"):
        http.put(f"/v1/secrets/{name}", json={"value": name})
    with database.write() as session:
        session.get_one(SecretRow, (project, "two")).sealed = session.get_one(SecretRow, (project, "one")).sealed
    with database.write() as session:
        found = project_secrets.opened(session, Sealer.of(settings), project, ["one", "two"])
    assert found == {"one": "one"}


@pytest.mark.parametrize(
    ("name", "body", "pointer", "code"),
    [
        ("hub", {}, "/value", "required"),
        ("hub", {"value": ""}, "/value", "string_too_short"),
        ("hub", {"value": "x" * 4097}, "/value", "string_too_long"),
        ("hub", {"value": "hf_Canary\nX-Other: 1"}, "/value", "string_pattern_mismatch"),
        ("hub", {"value": "hf_Canaryé"}, "/value", "string_pattern_mismatch"),
        ("hub", {"value": "x", "name": "hub"}, "/name", "unknown_field"),
        ("Hub", {"value": "x"}, "path:name", "bad_secret_name"),
        ("hf_canary", {"value": "x"}, "path:name", "bad_secret_name"),
        ("-hub", {"value": "x"}, "path:name", "bad_secret_name"),
        ("x" * 64, {"value": "x"}, "path:name", "bad_secret_name"),
    ],
)
def test_what_cannot_be_a_secret_is_refused_without_repeating_it(
    http: TestClient, name: str, body: dict[str, Any], pointer: str, code: str
) -> None:
    answer = http.put(f"/v1/secrets/{name}", json=body)
    assert answer.status_code == 422
    assert [(e["pointer"], e["code"]) for e in answer.json()["errors"]] == [(pointer, code)]
    assert "Canary" not in answer.text
    assert "canary" not in answer.text


def test_a_project_has_so_many_and_no_more_but_may_replace(http: TestClient) -> None:
    for number in range(MAX_SECRETS):
        assert http.put(f"/v1/secrets/s{number}", json={"value": "x"}).status_code == 200
    full = http.put("/v1/secrets/more", json={"value": "x"})
    assert (full.status_code, full.json()["code"]) == (429, "quota_exceeded")
    assert http.put("/v1/secrets/s1", json={"value": "y"}).status_code == 200


def test_the_same_name_in_two_projects_is_two_secrets(
    http: TestClient, database: Database, settings: Settings, project: str, other_key: str
) -> None:
    stranger = {"Authorization": f"Bearer {other_key}"}
    http.put("/v1/secrets/hub", json={"value": "mine"})
    assert http.get("/v1/secrets", headers=stranger).json()["data"] == []
    assert http.delete("/v1/secrets/hub", headers=stranger).status_code == 404
    refused = http.post("/v1/jobs", json=asking(hub_token={"secret": "hub"}), headers=stranger)
    assert [e["code"] for e in refused.json()["errors"]] == ["unknown_secret"]
    assert http.put("/v1/secrets/hub", json={"value": "theirs"}, headers=stranger).status_code == 200
    with database.write() as session:
        theirs = keys.project_named(session, "other").id
        sealer = Sealer.of(settings)
        assert project_secrets.opened(session, sealer, project, ["hub"]) == {"hub": "mine"}
        assert project_secrets.opened(session, sealer, theirs, ["hub"]) == {"hub": "theirs"}


def test_a_spec_names_a_secret_and_the_resolved_one_holds_the_name_alone(http: TestClient) -> None:
    http.put("/v1/secrets/hub", json={"value": TOKEN})
    answer = http.post("/v1/jobs?validate_only=true", json=asking(hub_token={"secret": "hub"}))
    assert answer.status_code == 200, answer.text
    assert answer.json()["resolved"]["student"]["hub_token"] == {"secret": "hub"}
    assert TOKEN not in answer.text
    without = http.post("/v1/jobs?validate_only=true", json=asking())
    assert "hub_token" not in without.json()["resolved"]["student"], "an older worker would not know the field"


def test_a_teacher_trained_in_the_job_may_name_one_too(http: TestClient) -> None:
    http.put("/v1/secrets/hub", json={"value": TOKEN})
    train = {"architecture": ASKING | {"hub_token": {"secret": "hud"}}, "epochs": 1}
    answer = http.post("/v1/jobs", json=SPEC | {"teacher": {"train": train}})
    [error] = answer.json()["errors"]
    assert (error["pointer"], error["code"]) == ("/teacher/train/architecture/hub_token/secret", "unknown_secret")
    assert "close names: hub." in error["detail"]
    assert "stillhouse secrets set" in answer.json()["hint"]


@pytest.mark.parametrize(
    ("given", "pointer", "code"),
    [
        (TOKEN, "/student/hub_token", "literal_secret"),
        ({"secret": TOKEN}, "/student/hub_token/secret", "bad_secret_name"),
        ({"value": TOKEN, "secret": "hub"}, "/student/hub_token/value", "unknown_field"),
        ({"secret": "0123456789abcdef-canary"}, "/student/hub_token/secret", "unknown_secret"),
    ],
)
def test_a_token_itself_in_a_spec_is_refused_and_not_repeated(
    http: TestClient, given: Any, pointer: str, code: str
) -> None:
    answer = http.post("/v1/jobs", json=asking(hub_token=given))
    assert answer.status_code == 422
    [error] = answer.json()["errors"]
    assert (error["pointer"], error["code"]) == (pointer, code)
    assert "anary" not in answer.text
    if code in ("literal_secret", "bad_secret_name"):
        assert "stillhouse secrets set NAME" in error["detail"]


def test_a_token_without_anything_to_download_is_a_contradiction(http: TestClient) -> None:
    http.put("/v1/secrets/hub", json={"value": TOKEN})
    answer = http.post("/v1/jobs", json=asking(pretrained=False, hub_token={"secret": "hub"}))
    assert [(e["pointer"], e["code"]) for e in answer.json()["errors"]] == [("/student/hub_token", "contradiction")]
