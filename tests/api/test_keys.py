"""API keys over HTTP and by the operator's command: made, used, rotated, expired, revoked. On both databases."""

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import select, update

from api import keys as keys_command
from core.db import Database
from core.settings import Settings
from models import keys
from models.api_key import ApiKeyRow
from models.base import db_now


def as_key(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_a_new_key_is_shown_once_and_works(http: TestClient, traces: Any) -> None:
    answer = http.post("/v1/keys", json={"name": "ci", "scope": "read", "expires_in_days": 90})
    made = answer.json()
    assert (answer.status_code, answer.headers["cache-control"]) == (201, "no-store")
    assert answer.headers["location"] == f"/v1/keys/{made['id']}"
    assert made["key"].startswith(made["start"])
    assert keys.well_formed(made["key"])
    kept = http.get(f"/v1/keys/{made['id']}").json()
    assert kept == {name: value for name, value in made.items() if name != "key"}
    me = http.get("/v1/keys/me", headers=as_key(made["key"])).json()
    assert (me["project"], me["key"]["id"], me["key"]["scope"]) == ("default", made["id"], "read")
    assert made["key"] not in http.get("/v1/keys").text


def test_a_key_needs_no_more_than_a_name(http: TestClient) -> None:
    made = http.post("/v1/keys", json={"name": "ci"}).json()
    assert (made["scope"], made["expires_at"], made["last_used_at"]) == ("write", None, None)


@pytest.mark.parametrize(
    ("body", "pointer", "code"),
    [
        ({}, "/name", "required"),
        ({"name": ""}, "/name", "string_too_short"),
        ({"name": "x", "scope": "root"}, "/scope", "unknown_choice"),
        ({"name": "x", "expires_in_days": 0}, "/expires_in_days", "greater_than"),
        ({"name": "x", "expires_in_days": 1e9}, "/expires_in_days", "less_than_equal"),
        ({"name": "x", "project": "other"}, "/project", "unknown_field"),
    ],
)
def test_a_wrong_wish_names_its_field(http: TestClient, body: dict[str, Any], pointer: str, code: str) -> None:
    answer = http.post("/v1/keys", json=body)
    assert answer.status_code == 422
    assert [(e["pointer"], e["code"]) for e in answer.json()["errors"]] == [(pointer, code)]


def test_a_revoked_key_opens_nothing_from_then_on(http: TestClient) -> None:
    made = http.post("/v1/keys", json={"name": "ci"}).json()
    assert http.get("/v1/jobs", headers=as_key(made["key"])).status_code == 200
    for _ in range(2):
        assert http.delete(f"/v1/keys/{made['id']}").status_code == 204
        assert http.get("/v1/jobs", headers=as_key(made["key"])).status_code == 401
    assert http.get(f"/v1/keys/{made['id']}").json()["revoked_at"] is not None


def test_the_last_administrator_cannot_lock_the_project_out(http: TestClient) -> None:
    mine = http.get("/v1/keys/me").json()["key"]["id"]
    answer = http.delete(f"/v1/keys/{mine}")
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
    assert http.get("/v1/jobs").status_code == 200
    http.post("/v1/keys", json={"name": "second", "scope": "admin"})
    assert http.delete(f"/v1/keys/{mine}").status_code == 204
    assert http.get("/v1/jobs").status_code == 401


def test_two_administrators_who_revoke_each_other_at_once_leave_one(
    http: TestClient, database: Database, project: str
) -> None:
    mine = http.get("/v1/keys/me").json()["key"]["id"]
    other = http.post("/v1/keys", json={"name": "second", "scope": "admin"}).json()["id"]
    answers = []
    asking = Thread(target=lambda: answers.append(http.delete(f"/v1/keys/{mine}").status_code))
    with database.write() as session:
        keys.hold_project(session, project)
        keys.revoke(session, other)
        asking.start()
        asking.join(1)  # by now it waits for this transaction, or has done what it must not
    asking.join(60)
    assert answers == [409]


def test_an_expired_key_opens_nothing_on_any_path(
    http: TestClient, database: Database, post_job: Any, api_key: str
) -> None:
    """The path of polling asks the database in a way of its own."""
    job_id = post_job()
    made = http.post("/v1/keys", json={"name": "ci", "expires_in_days": 1}).json()
    paths = (f"/v1/jobs/{job_id}", "/v1/jobs", f"/v1/jobs/{job_id}/events")
    for path in paths * 2:
        assert http.get(path, headers=as_key(made["key"])).status_code == 200
    with database.write() as session:
        over = db_now(session) - timedelta(milliseconds=1)
        session.execute(update(ApiKeyRow).where(ApiKeyRow.id == made["id"]).values(expires_at=over))
    for path in paths:
        assert http.get(path, headers=as_key(made["key"])).status_code == 401, path


def test_a_rotation_leaves_time_to_change_over(http: TestClient, database: Database) -> None:
    old = http.post("/v1/keys", json={"name": "ci", "scope": "read", "expires_in_days": 30}).json()
    answer = http.post(f"/v1/keys/{old['id']}/rotate?overlap_hours=1")
    new = answer.json()
    assert answer.status_code == 201
    assert (new["name"], new["scope"]) == ("ci", "read")
    assert new["key"] != old["key"]
    for key in (old["key"], new["key"]):
        assert http.get("/v1/jobs", headers=as_key(key)).status_code == 200
    after = http.get(f"/v1/keys/{old['id']}").json()
    assert after["replaced_by"] == new["id"]
    assert after["expires_at"] < old["expires_at"] < new["expires_at"]
    again = http.post(f"/v1/keys/{old['id']}/rotate")
    assert (again.status_code, again.json()["code"]) == (409, "conflict")


def test_a_rotation_without_overlap_ends_the_old_key_at_once(http: TestClient) -> None:
    old = http.post("/v1/keys", json={"name": "leaked"}).json()
    new = http.post(f"/v1/keys/{old['id']}/rotate?overlap_hours=0").json()
    assert http.get("/v1/jobs", headers=as_key(old["key"])).status_code == 401
    assert http.get("/v1/jobs", headers=as_key(new["key"])).status_code == 200


def test_keys_come_in_pages(http: TestClient) -> None:
    made = [http.post("/v1/keys", json={"name": f"k{n}"}).json()["id"] for n in range(3)]
    first = http.get("/v1/keys?limit=2").json()
    rest = http.get(f"/v1/keys?limit=2&after={first['next_cursor']}").json()
    assert [k["id"] for k in first["data"] + rest["data"]][:3] == made[::-1]
    assert (first["has_more"], rest["has_more"]) == (True, False)


def test_the_use_of_a_key_is_noted_but_not_each_time(
    app: FastAPI, api_key: str, database: Database, settings: Settings
) -> None:
    def noted() -> Any:
        with database.read() as session:
            return session.scalars(select(ApiKeyRow.last_used_at).where(ApiKeyRow.digest == keys.digest(api_key))).one()

    assert noted() is None
    with TestClient(app, headers=as_key(api_key)) as client:
        for path in ("/v1/jobs", "/v1/jobs/job_" + "0" * 26) * 3:
            client.get(path)
    first = noted()
    assert first is not None
    with TestClient(app, headers=as_key(api_key)) as client:
        client.get("/v1/jobs")
    assert noted() == first
    with database.write() as session:
        long_ago = db_now(session) - timedelta(minutes=2)
        session.execute(update(ApiKeyRow).values(last_used_at=long_ago))
    with TestClient(app, headers=as_key(api_key)) as client:
        client.get("/v1/jobs")
    assert noted() > first


def test_the_operator_makes_and_rotates_keys_of_any_scope(
    settings: Settings, http: TestClient, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STILLHOUSE_DATABASE_URL", settings.resolved_database_url)
    command = ["create", "--project", "lab", "--name", "ci", "--scope", "read", "--expires-in-days", "7"]
    assert keys_command.main(command) == 0
    old = capsys.readouterr().out.strip()
    me = http.get("/v1/keys/me", headers=as_key(old)).json()
    assert (me["project"], me["key"]["scope"]) == ("lab", "read")
    assert keys_command.main(["rotate", me["key"]["id"], "--overlap-hours", "0"]) == 0
    new = capsys.readouterr().out.strip()
    assert http.get("/v1/jobs", headers=as_key(old)).status_code == 401
    assert http.get("/v1/jobs", headers=as_key(new)).status_code == 200
    assert keys_command.main(["rotate", me["key"]["id"]]) == 1
    capsys.readouterr()
    assert keys_command.main(["list"]) == 0
    assert "expired  read" in capsys.readouterr().out
    assert keys_command.main(["create", "--name", "plain"]) == 0
    plain = capsys.readouterr().out.strip()
    assert http.get("/v1/keys/me", headers=as_key(plain)).json()["key"]["scope"] == "write"


def operators(tmp_path: Path, *command: str) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("STILLHOUSE_")}
    # Elsewhere: the default folder would be made here.
    place = {"cwd": tmp_path, "env": env | {"PYTHONPATH": str(Path(__file__).parents[2])}}
    return subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, timeout=60, **place)  # type: ignore[call-overload,no-any-return]


def test_the_operators_commands_take_the_folder_the_service_keeps_its_data_in(tmp_path: Path) -> None:
    folder = tmp_path / "its own"
    folder.mkdir()
    nothing = operators(tmp_path, "api.keys", "list", "--data-dir", str(folder))
    assert (nothing.returncode, list(folder.iterdir())) == (1, [])
    assert f"There is no database at {folder / 'stillhouse.db'}." in nothing.stderr
    assert operators(tmp_path, "models.migrate", "--data-dir", str(folder)).returncode == 0
    made = operators(tmp_path, "api.keys", "create", "--name", "ann", "--data-dir", str(folder))
    assert keys.well_formed(made.stdout.strip()), made.stderr
    assert "ann" in operators(tmp_path, "api.keys", "list", "--data-dir", str(folder)).stdout
    assert [path.name for path in tmp_path.iterdir()] == ["its own"]
