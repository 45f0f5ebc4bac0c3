"""Webhooks as a caller meets them: refused URLs, the echo of the spec, deliveries, the secret. On both databases."""

import base64
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from api.main import create_app
from core.outbound import Guard
from core.pinned import Poster
from core.sealing import Sealer
from core.settings import Settings
from tests.api.conftest import Traces
from tests.core.test_outbound import CLOSED
from tests.house import SPEC, House
from tests.receiver import receiver
from tests.worker.hooked import verified
from worker.webhooks import Courier

WHERE = "https://example.com/hook?token=t0ken"


def test_the_spec_echoes_the_webhook_as_posted_and_as_it_runs(http: TestClient, post_job: Callable[..., str]) -> None:
    job = http.get(f"/v1/jobs/{post_job(webhook={'url': WHERE})}").json()
    assert job["spec"]["webhook"] == {"url": WHERE}
    assert job["resolved"]["webhook"] == {"url": WHERE, "events": ["succeeded", "failed", "cancelled"]}
    without = http.get(f"/v1/jobs/{post_job()}").json()
    assert "webhook" not in without["spec"]
    assert without["resolved"]["webhook"] is None


def test_every_closed_url_is_refused_at_its_field_and_leaves_nothing(
    http: TestClient, digits: str, traces: Traces
) -> None:
    before = traces()
    for url in CLOSED:
        answer = http.post("/v1/jobs", json=SPEC | {"webhook": {"url": url}})
        assert answer.status_code == 422, url
        [wrong] = answer.json()["errors"]
        assert wrong["pointer"] == "/webhook/url", url
        assert wrong["code"] in ("bad_url", "url_not_allowed", "string_too_long"), url
        assert wrong["detail"].endswith((".", ")."))
    assert traces() == before


def test_a_literal_private_address_is_refused_by_validate_only_too(http: TestClient, digits: str) -> None:
    for url in ("https://127.0.0.1/", "https://[::1]:8443/", "https://10.0.0.1/", "https://localhost/"):
        answer = http.post("/v1/jobs?validate_only=true", json=SPEC | {"webhook": {"url": url}})
        problem = answer.json()
        assert (answer.status_code, problem["code"]) == (422, "invalid_spec")
        assert problem["errors"] == [
            {
                "pointer": "/webhook/url",
                "code": "url_not_allowed",
                "detail": "Use a public host: this address is not one the service may call.",
            }
        ]


@pytest.mark.parametrize(
    ("webhook", "pointer", "code"),
    [
        ({}, "/webhook/url", "required"),
        ({"url": 5}, "/webhook/url", "string_type"),
        ({"url": WHERE, "secret": "x"}, "/webhook/secret", "unknown_field"),
        ({"url": WHERE, "events": []}, "/webhook/events", "too_short"),
        ({"url": WHERE, "events": ["started"]}, "/webhook/events/0", "unknown_choice"),
        ({"url": WHERE, "events": ["failed", "failed"]}, "/webhook/events", "duplicate"),
        (WHERE, "/webhook", "not_an_object"),
    ],
)
def test_a_wrong_webhook_names_the_field(http: TestClient, webhook: object, pointer: str, code: str) -> None:
    answer = http.post("/v1/jobs", json=SPEC | {"webhook": webhook})
    assert answer.status_code == 422
    assert [(e["pointer"], e["code"]) for e in answer.json()["errors"]] == [(pointer, code)]


def test_what_the_operator_opened_may_be_called(settings: Settings, api_key: str, digits: str) -> None:
    opened = settings.model_copy(update={"outbound_allow": ("10.1.0.0/16",), "outbound_http": True})
    with TestClient(create_app(opened), headers={"Authorization": f"Bearer {api_key}"}) as http:
        for url, status in (("http://10.1.2.3:8080/", 202), ("http://10.2.0.1/", 422), ("http://example.com/", 202)):
            assert http.post("/v1/jobs", json=SPEC | {"webhook": {"url": url}}).status_code == status, url


def test_deliveries_are_listed_without_the_secrets_of_the_url(
    http: TestClient, house: House, post_job: Callable[..., str]
) -> None:
    job_id = post_job(webhook={"url": WHERE})
    path = f"/v1/jobs/{job_id}/webhook-deliveries"
    assert http.get(path).json()["data"] == []
    house.succeed(house.take_up(job_id), {})
    answer = http.get(path)
    [delivery] = answer.json()["data"]
    created = delivery["created_at"]
    assert delivery.pop("id").startswith("evt_")
    assert delivery == {
        "object": "webhook_delivery",
        "job_id": job_id,
        "type": "job.succeeded",
        "endpoint": "https://example.com",
        "status": "pending",
        "attempts": 0,
        "next_at": created,
        "last_status": None,
        "last_error": None,
        "created_at": created,
        "finished_at": None,
    }
    assert "t0ken" not in answer.text
    assert answer.json()["has_more"] is False


def test_the_secret_read_here_verifies_what_the_worker_sends(
    settings: Settings, http: TestClient, house: House, post_job: Callable[..., str]
) -> None:
    """API and worker find the same key in the settings, and the same secret under it."""
    with receiver() as hook:
        opened = settings.model_copy(update={"outbound_allow": ("127.0.0.0/8",), "outbound_http": True})
        with TestClient(create_app(opened), headers=dict(http.headers)) as allowed:
            job_id = allowed.post("/v1/jobs", json=SPEC | {"webhook": {"url": hook.url}}).json()["id"]
        assert http.post(f"/v1/jobs/{job_id}/cancel").status_code == 200
        hook.answers = [(500, {})]
        assert Courier(house.database, Poster(Guard.of(opened)), Sealer.of(opened)).deliver_next()
    [got] = hook.received
    assert verified(got, http.get("/v1/webhook-secret").json()["secret"])
    [delivery] = http.get(f"/v1/jobs/{job_id}/webhook-deliveries").json()["data"]
    assert (delivery["status"], delivery["attempts"], delivery["last_status"]) == ("pending", 1, 500)
    assert (delivery["id"], delivery["last_error"]) == (got.headers["webhook-id"], "bad_status")
    assert delivery["next_at"] > delivery["created_at"]
    [event] = http.get(f"/v1/jobs/{job_id}/events?type=webhook").json()["data"]
    assert (event["type"], event["data"]["delivery_id"]) == ("webhook", delivery["id"])
    assert "webhook" in http.get(f"/v1/jobs/{job_id}/log").text


def test_the_secret_is_made_once_and_rotated_on_demand(http: TestClient) -> None:
    first = http.get("/v1/webhook-secret")
    assert first.headers["cache-control"] == "no-store"
    assert first.json() == http.get("/v1/webhook-secret").json()
    assert first.json()["previous_signs_until"] is None
    assert len(base64.b64decode(first.json()["secret"].removeprefix("whsec_"), validate=True)) == 32
    rotated = http.post("/v1/webhook-secret/rotate")
    assert (rotated.status_code, rotated.headers["cache-control"]) == (200, "no-store")
    assert rotated.json() == http.get("/v1/webhook-secret").json()
    assert rotated.json()["secret"] != first.json()["secret"]
    assert rotated.json()["previous_signs_until"] is not None


def test_every_project_has_a_secret_of_its_own(http: TestClient, app: object, other_key: str) -> None:
    mine = http.get("/v1/webhook-secret").json()["secret"]
    stranger = {"Authorization": f"Bearer {other_key}"}
    assert http.get("/v1/webhook-secret", headers=stranger).json()["secret"] != mine
    http.post("/v1/webhook-secret/rotate", headers=stranger)
    assert http.get("/v1/webhook-secret").json()["secret"] == mine


def test_a_secret_stored_under_another_key_is_a_conflict_with_the_way_out(
    settings: Settings, http: TestClient, tmp_path: Path
) -> None:
    http.get("/v1/webhook-secret")
    other = Settings(**(settings.model_dump() | {"secret_key": "another key of the service " + "y" * 32}))
    with TestClient(create_app(other), headers=dict(http.headers)) as moved:
        answer = moved.get("/v1/webhook-secret")
        assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
        assert "rotate" in answer.json()["hint"]
        rotated = moved.post("/v1/webhook-secret/rotate").json()
        assert rotated["previous_signs_until"] is None
        assert moved.get("/v1/webhook-secret").json() == rotated
