"""Wrong keys are limited by address, and so are open connections; who has a good key is not harmed by neighbours."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import httpx2
import pytest
from fastapi.testclient import TestClient

from api.__main__ import server_config
from api.main import create_app
from api.strangers import Connections, Strangers, origin
from core.db import Database
from core.settings import Settings
from models import keys
from stillhouse.spec.errors import RateLimited
from stillhouse.spec.limits import Limits
from tests.house import serve


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    return sqlite_url


@pytest.fixture
def http(settings: Settings) -> Iterator[TestClient]:
    few = settings.model_copy(update={"limits": Limits(max_failed_keys_per_minute=3)})
    with TestClient(create_app(few)) as client:
        yield client


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def revoked(database: Database, project: str) -> str:
    """A key of the right form that opens nothing."""
    with database.write() as session:
        row, key = keys.make(session, project, name="gone", scope="read")
        session.delete(row)
    return key


def test_wrong_keys_are_answered_429_and_good_ones_go_on(
    http: TestClient, database: Database, project: str, api_key: str
) -> None:
    gone = revoked(database, project)
    job = "/v1/jobs/job_" + "0" * 26
    assert http.get("/v1/jobs", headers=bearer(api_key)).status_code == 200
    # Of each form, and on the route that has a way of its own; to show no key at all is no attempt.
    for path, key in (("/v1/jobs", "nonsense"), (job, gone), ("/v1/jobs", gone)):
        assert http.get(path, headers=bearer(key)).status_code == 401
        assert http.get(path).status_code == 401
    for path, key in (("/v1/jobs", gone), (job, gone), (job, "nonsense"), ("/v1/models", gone)):
        refused = http.get(path, headers=bearer(key))
        assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited"), path
        assert 1 <= int(refused.headers["retry-after"]) <= 20
    assert http.get("/v1/jobs").status_code == 401
    assert http.get("/v1/jobs", headers=bearer(api_key)).status_code == 200
    assert http.get(job, headers=bearer(api_key)).status_code == 404


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_the_count_refills_evenly_and_each_address_has_its_own() -> None:
    clock = Clock()
    strangers = Strangers(quota=3, clock=clock)
    for _ in range(3):
        strangers.admit("192.0.2.1", "d")
        strangers.failed("192.0.2.1")
    for ask in (lambda: strangers.admit("192.0.2.1", "d"), lambda: strangers.failed("192.0.2.1")):
        with pytest.raises(RateLimited) as refused:
            ask()
        assert refused.value.retry_after_seconds == 20
    strangers.admit("192.0.2.2", "d")
    strangers.passed("good")
    strangers.admit("192.0.2.1", "good")
    clock.now += 20
    strangers.admit("192.0.2.1", "d")


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.strangers._ADDRESSES", 10)
    monkeypatch.setattr("api.strangers._KEYS", 10)
    strangers = Strangers(quota=1)
    for number in range(100):
        strangers.failed(f"192.0.2.{number}")
        strangers.passed(f"digest {number}")
    assert (len(strangers._spent), len(strangers._good)) == (10, 10)


@pytest.mark.parametrize(
    ("address", "counted_as"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("testclient", "testclient"),
        ("", ""),
    ],
)
def test_a_subscriber_is_one_caller(address: str, counted_as: str) -> None:
    assert origin(address) == counted_as


def test_connections_of_an_address_are_counted_and_those_of_a_proxy_are_not() -> None:
    connections = Connections(most=5, most_per_address=2, shared=("10.0.0.0/8",))
    assert [connections.opened("192.0.2.1") for _ in range(3)] == [True, True, False]
    connections.closed("192.0.2.1")
    connections.closed("192.0.2.1")
    assert connections.opened("192.0.2.1")
    assert [connections.opened("10.1.2.3") for _ in range(4)] == [True, True, True, False]
    for address in ["192.0.2.1"] * 2 + ["10.1.2.3"] * 4:
        connections.closed(address)
    assert not connections._open


def test_a_connection_too_many_is_told_so_and_room_comes_back(settings: Settings) -> None:
    few = settings.model_copy(update={"max_connections_per_address": 3})
    with serve(server_config(few, create_app(few))) as url:
        host, port = httpx2.URL(url).host, httpx2.URL(url).port
        assert port is not None
        with ExitStack() as held:
            for _ in range(3):
                held.enter_context(socket.create_connection((host, port)))
            with socket.create_connection((host, port)) as one_more:
                one_more.settimeout(30)
                told = b"".join(iter(lambda: one_more.recv(4096), b""))
        assert told.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 2" in told
        assert b'"code":"unavailable"' in told
        with httpx2.Client(transport=httpx2.HTTPTransport(retries=5)) as client:
            while client.get(f"{url}/healthz").status_code == 503:
                pass  # the server has not heard yet that they are closed
