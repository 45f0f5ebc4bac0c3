"""`python -m api` as a process: its sockets, its bounds, its end."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx2
import pytest
from sqlalchemy import select

from api import protocol
from api.__main__ import server_config
from api.main import create_app
from api.services import uploads
from core.db import Database
from core.settings import Settings
from models.audit import AuditRow
from tests.house import SPEC, serve


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    return sqlite_url


@pytest.fixture
def process(settings: Settings) -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    """Address and process of a service on an inherited socket."""
    env = os.environ | {
        "STILLHOUSE_DATA_DIR": str(settings.data_dir),
        "STILLHOUSE_DATABASE_URL": settings.resolved_database_url,
        "STILLHOUSE_BROKER_URL": settings.broker_url,
        "STILLHOUSE_QUEUE": settings.queue,
    }
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        command = [sys.executable, "-m", "api", "--fd", str(listener.fileno())]
        child = subprocess.Popen(command, env=env, pass_fds=[listener.fileno()])
    yield f"http://127.0.0.1:{port}", child
    child.kill()
    child.wait()


def test_a_service_on_an_inherited_socket_serves_and_stops_cleanly_under_open_streams(
    process: tuple[str, "subprocess.Popen[bytes]"], api_key: str, digits: str
) -> None:
    url, child = process
    with httpx2.Client(base_url=url, headers={"Authorization": f"Bearer {api_key}"}, timeout=30) as client:
        # The socket listens before the process does: the first request waits and is not refused.
        assert client.get("/healthz").status_code == 200
        job_id = client.post("/v1/jobs", json=SPEC).json()["id"]
        with client.stream("GET", f"/v1/jobs/{job_id}/events", headers={"Accept": "text/event-stream"}) as answer:
            lines = answer.iter_lines()
            assert next(line for line in lines if line.startswith("id:")) == "id: 1"
            child.send_signal(signal.SIGTERM)
            # It ends without `done`, so that the client comes again.
            assert [line for line in lines if line.startswith("event: done")] == []
    assert child.wait(30) in (0, -signal.SIGTERM)


def connect(live: str) -> socket.socket:
    url = urlsplit(live)
    return socket.create_connection((url.hostname, url.port), timeout=30)


def everything(connection: socket.socket) -> bytes:
    """What comes until the other side closes."""
    got = b""
    with contextlib.suppress(ConnectionResetError):
        while data := connection.recv(65536):
            got += data
    return got


@pytest.mark.parametrize(
    "piece", [b"a" * 65536, b"X-A: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n" * 1500], ids=["one header", "many headers"]
)
def test_a_head_without_end_is_cut_off(live: str, piece: bytes) -> None:
    with connect(live) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Long: ")
        with pytest.raises((BrokenPipeError, ConnectionResetError)):  # noqa: PT012
            for _ in range(2000):
                connection.sendall(piece)


def test_a_head_that_takes_too_long_is_cut_off(live: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.2)
    with connect(live) as silent:
        assert everything(silent).startswith(b"HTTP/1.1 400 ")
    with connect(live) as slow:
        slow.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert slow.recv(65536).startswith(b"HTTP/1.1 200 ")
        slow.sendall(b"GET /healthz HT")
        assert everything(slow).startswith(b"HTTP/1.1 400 ")


def test_a_head_in_pieces_and_requests_in_a_row_are_served(live: str) -> None:
    with connect(live) as connection:
        for piece in (b"GET /healthz HT", b"TP/1.1\r\nHo", b"st: x\r\n\r\n"):
            connection.sendall(piece)
            time.sleep(0.02)
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
        connection.sendall(b"GET /version HTTP/1.1\r\nHost: x\r\n\r\nGET /nowhere HTTP/1.1\r\nHost: x\r\n")
        connection.sendall(b"Connection: close\r\n\r\n")
        both = everything(connection)
        assert both.startswith(b"HTTP/1.1 200 ")
        assert b"HTTP/1.1 404 " in both


@pytest.mark.parametrize(
    "request_head",
    [
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nbad header\r\n\r\n",
    ],
)
def test_a_malformed_request_is_refused(live: str, request_head: bytes) -> None:
    with connect(live) as connection:
        connection.sendall(request_head)
        assert connection.recv(65536).startswith(b"HTTP/1.1 400 ")


def test_head_over_the_wire_sends_no_body(live: str, api_key: str) -> None:
    with connect(live) as connection:
        connection.sendall(b"HEAD /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = everything(connection)
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert answer.endswith(b"\r\n\r\n")
        assert b"content-length: 15\r\n" in answer


def test_proxy_headers_of_a_caller_change_nothing(live: str) -> None:
    forged = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "10.0.0.1", "X-Forwarded-Host": "evil"}
    answer = httpx2.get(f"{live}/v1/jobs", headers=forged, timeout=30)
    assert answer.status_code == 401
    assert "evil" not in answer.text + str(answer.headers)


def test_what_is_no_request_is_refused_in_the_form_of_all_refusals(live: str) -> None:
    with connect(live) as connection:
        connection.sendall(b"nonsense\r\n\r\n")
        head, _, body = everything(connection).partition(b"\r\n\r\n")
    assert json.loads(body)["code"] == "bad_request"
    assert b"content-type: application/problem+json" in head
    for header in (b"x-content-type-options: nosniff", b"content-security-policy: default-src 'none'"):
        assert header in head
    assert b"server:" not in head.lower()


def test_an_upload_that_stalls_is_given_up_and_leaves_nothing(
    live: str, api_key: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "IDLE_SECONDS", 0.3)
    with connect(live) as connection:
        connection.sendall(upload_head(api_key, 1000) + b"a,b\n")
        answer = everything(connection)
    assert answer.startswith(b"HTTP/1.1 422 ")
    assert b"cut_off" in answer
    assert [path for path in (settings.work_dir / "uploads").iterdir() if path.is_dir()] == []


def test_an_upload_that_drips_is_given_up_though_it_never_stalls(
    live: str, api_key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "IDLE_SECONDS", 0.5)
    with connect(live) as connection:
        connection.sendall(upload_head(api_key, 10_000_000))
        dripping = threading.Event()

        def drip() -> None:
            with contextlib.suppress(OSError):
                while not dripping.wait(0.05):
                    connection.sendall(b"x")

        thread = threading.Thread(target=drip)
        thread.start()
        answer = connection.recv(65536)
        dripping.set()
        thread.join()
    assert answer.startswith(b"HTTP/1.1 422 ")
    assert b"slower than" in answer


def test_a_body_nobody_wants_holds_the_connection_for_a_while_only(live: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "LEFTOVER_SECONDS", 0.3)
    with connect(live) as connection:
        connection.sendall(upload_head("shk_wrong", 10_000_000))
        assert connection.recv(65536).startswith(b"HTTP/1.1 401 ")
        with pytest.raises((BrokenPipeError, ConnectionResetError)):  # noqa: PT012
            while True:
                connection.sendall(b"x")
                time.sleep(0.02)


def test_a_caller_that_does_not_read_its_answers_is_cut_off(live: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "UNREAD_SECONDS", 0.3)
    one = len(httpx2.get(f"{live}/openapi.json", timeout=30).content)
    # Far more than the buffers of both ends hold.
    many = 40_000_000 // one
    with connect(live) as connection:
        connection.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * many)
        time.sleep(1)
        assert len(everything(connection)) < many * one


def test_proxies_are_believed_only_when_the_operator_named_them(
    settings: Settings, api_key: str, database: Database
) -> None:
    forwarded = {"X-Forwarded-For": "6.6.6.6, 198.51.100.7", "X-Forwarded-Proto": "https"}
    seen = []
    for proxies in ((), ("127.0.0.0/8",)):
        trusting = settings.model_copy(update={"trusted_proxies": proxies})
        with serve(server_config(trusting, create_app(trusting))) as url:
            headers = forwarded | {"Authorization": f"Bearer {api_key}"}
            answer = httpx2.post(f"{url}/v1/keys", json={"name": "x"}, headers=headers, timeout=30)
            assert answer.status_code == 201
            seen.append(answer.headers.get("strict-transport-security"))
    assert seen == [None, "max-age=31536000"]
    with database.read() as session:
        assert list(session.scalars(select(AuditRow.address).order_by(AuditRow.id))) == ["127.0.0.1", "198.51.100.7"]


def upload_head(key: str, length: int) -> bytes:
    return (
        f"POST /v1/datasets?name=slow HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Length: {length}\r\n\r\n"
    ).encode()
