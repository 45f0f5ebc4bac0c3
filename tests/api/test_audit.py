"""The audit log: who did what to which object from where, whether it was done or refused; nothing can be unwritten."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import delete, select, text, update
from sqlalchemy.exc import DBAPIError

from api import keys as keys_command
from core.db import Database
from core.settings import Settings
from models import audits
from models.audit import AuditRow
from models.base import db_now
from stillhouse.spec.ids import new_id


def entries(http: TestClient, query: str = "") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = http.get(f"/v1/audit{query}").json()["data"]
    return found


def test_what_changed_something_is_written_down_with_all_that_matters(
    http: TestClient, post_job: Callable[..., str]
) -> None:
    me = http.get("/v1/keys/me").json()["key"]["id"]
    job_id = post_job()
    answer = http.post(f"/v1/jobs/{job_id}/cancel", headers={"X-Request-Id": "req-of-mine"})
    cancelled, created = entries(http)
    assert {name: cancelled[name] for name in ("key_id", "action", "target", "status", "code", "request_id")} == {
        "key_id": me,
        "action": "cancel_job",
        "target": job_id,
        "status": answer.status_code,
        "code": None,
        "request_id": "req-of-mine",
    }
    assert cancelled["address"] == "testclient"
    assert (created["action"], created["target"], created["status"]) == ("create_job", job_id, 202)
    assert cancelled["at"] >= created["at"]


def test_what_was_refused_is_written_down_too(http: TestClient) -> None:
    nobody = "job_" + "0" * 26
    assert http.post(f"/v1/jobs/{nobody}/cancel").status_code == 404
    assert http.post("/v1/jobs", json={}).status_code == 422
    reader = http.post("/v1/keys", json={"name": "r", "scope": "read"}).json()
    headers = {"Authorization": f"Bearer {reader['key']}"}
    assert http.post("/v1/jobs", json={}, headers=headers).status_code == 403
    assert http.get("/v1/keys", headers=headers).status_code == 403
    listed, posted, made, invalid, missing = entries(http)
    assert (listed["action"], listed["code"], listed["key_id"]) == ("list_keys", "forbidden", reader["id"])
    assert (posted["action"], posted["status"], posted["code"]) == ("create_job", 403, "forbidden")
    assert (made["action"], made["target"]) == ("create_key", reader["id"])
    assert (invalid["status"], invalid["code"], invalid["target"]) == (422, "invalid_spec", None)
    assert (missing["action"], missing["target"], missing["code"]) == ("cancel_job", nobody, "not_found")


def test_reading_is_not_written_down_but_reading_a_secret_is(http: TestClient, post_job: Callable[..., str]) -> None:
    job_id = post_job()
    for path in (f"/v1/jobs/{job_id}", "/v1/jobs", f"/v1/jobs/{job_id}/events", "/v1/datasets", "/healthz"):
        http.get(path)
    http.get("/v1/webhook-secret")
    assert [entry["action"] for entry in entries(http)][:2] == ["get_webhook_secret", "create_job"]


def test_the_log_holds_no_secret(http: TestClient) -> None:
    key = http.post("/v1/keys", json={"name": "ci"}).json()["key"]
    secret = http.get("/v1/webhook-secret").json()["secret"]
    text = http.get("/v1/audit").text
    assert key not in text
    assert secret not in text


def test_the_log_comes_in_pages_and_can_be_filtered(http: TestClient) -> None:
    made = [http.post("/v1/keys", json={"name": f"k{n}"}).json()["id"] for n in range(3)]
    http.delete(f"/v1/keys/{made[0]}")
    first = http.get("/v1/audit?limit=3&action=create_key").json()
    assert [entry["target"] for entry in first["data"]] == made[::-1]
    both = entries(http, f"?target={made[0]}")
    assert [entry["action"] for entry in both] == ["revoke_key", "create_key"]
    page = http.get("/v1/audit?limit=2").json()
    rest = http.get(f"/v1/audit?limit=2&after={page['next_cursor']}").json()
    assert len({entry["id"] for entry in page["data"] + rest["data"]}) == 4
    assert entries(http, f"?key={new_id('key')}") == []


def test_the_operators_commands_are_written_down(
    http: TestClient, settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STILLHOUSE_DATABASE_URL", settings.resolved_database_url)
    assert keys_command.main(["create", "--name", "by hand"]) == 0
    key_id = http.get("/v1/keys?limit=1").json()["data"][0]["id"]
    assert keys_command.main(["revoke", key_id]) == 0
    revoked, created = [entry for entry in entries(http) if entry["key_id"] is None]
    assert (revoked["action"], revoked["target"]) == ("revoke_key", key_id)
    assert (created["action"], created["target"], created["address"]) == ("create_key", key_id, None)


def test_the_database_refuses_to_change_or_drop_an_entry(http: TestClient, database: Database, project: str) -> None:
    http.post("/v1/keys", json={"name": "ci"})
    for statement in (update(AuditRow).values(action="x"), delete(AuditRow), text("UPDATE audit SET target = 'x'")):
        with pytest.raises(DBAPIError, match="append-only"), database.write() as session:
            session.execute(statement)
    with database.read() as session:
        assert list(session.scalars(select(AuditRow.action))) == ["create_key"]


def test_an_entry_that_cannot_be_stored_costs_nobody_the_answer(
    http: TestClient, database: Database, post_job: Callable[..., str]
) -> None:
    with database.write() as session:
        session.execute(text("ALTER TABLE audit RENAME TO away"))
    job_id = post_job()
    assert http.get(f"/v1/jobs/{job_id}").status_code == 200
    with database.write() as session:
        session.execute(text("ALTER TABLE away RENAME TO audit"))
    assert entries(http) == []


def test_only_what_is_old_by_policy_is_let_go(database: Database, project: str) -> None:
    with database.write() as session:
        old = db_now(session) - timedelta(days=401)
        for days in (0, 1):
            session.add(
                AuditRow(id=new_id("aud"), project_id=project, action="x", created_at=old + timedelta(days=days * 2))
            )
    with database.write() as session:
        audits.forget_old(session, days=400)
    with database.read() as session:
        assert [row.created_at for row in session.scalars(select(AuditRow))] == [old + timedelta(days=2)]
