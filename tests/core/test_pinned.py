"""The POST behind the guard, against real servers: pinned, verified, bounded, and silent about what it met.

Public addresses are never dialled: the test's own connector stands where the socket is opened, and leads to loopback.
"""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path

import httpcore2
import pytest
from cryptography import x509

from core.outbound import BadCertificate, Guard, NoAnswer, Refused
from core.pinned import Poster, connect_tcp
from tests.core.certificates import Authority, authority
from tests.receiver import receiver

PUBLIC = "93.184.215.14"
OTHER = "93.184.215.15"
NAME = x509.DNSName("hooks.example.com")


class Names:
    """A name server of the test's own: answers in turn, and counts the questions."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers, self.asked = list(answers), 0

    def __call__(self, host: str, port: int) -> list[str]:
        self.asked += 1
        return self.answers[min(self.asked, len(self.answers)) - 1]


class Wire:
    """Leads every connection to one port on loopback, and keeps where it should have gone."""

    def __init__(self, port: int, *, dead: tuple[str, ...] = ()) -> None:
        self.port, self.dead = port, dead
        self.dialled: list[tuple[str, int]] = []

    def __call__(self, address: str, port: int, seconds: float) -> httpcore2.NetworkStream:
        self.dialled.append((address, port))
        if address in self.dead:
            raise httpcore2.ConnectError("refused")
        return connect_tcp("127.0.0.1", self.port, seconds)


@pytest.fixture(scope="module")
def ours() -> Authority:
    return authority()


def local() -> Poster:
    """A poster that may call loopback."""
    return Poster(Guard(allow=["127.0.0.0/8"], plain_http=True))


def test_the_pinned_address_is_dialled_and_the_name_kept(ours: Authority, tmp_path: Path) -> None:
    """TLS, SNI, the certificate and the Host header are those of the name; the connection that of the address."""
    names = Names([PUBLIC], ["127.0.0.1"])
    with receiver(tls=ours.server(tmp_path, NAME)) as hook:
        wire = Wire(hook.port)
        poster = Poster(Guard(resolve=names), connect=wire, certificates=ours.trusting())
        status = poster.post("https://hooks.example.com:8443/a%20b?c=d", b"body", {"webhook-id": "evt_1"})
    assert status == 204
    assert (wire.dialled, names.asked) == ([(PUBLIC, 8443)], 1)
    [got] = hook.received
    assert (got.path, got.body, got.name) == ("/a%20b?c=d", b"body", "hooks.example.com")
    assert got.headers == {
        "host": "hooks.example.com:8443",
        "connection": "close",
        "content-length": "4",
        "webhook-id": "evt_1",
    }


def test_the_answer_of_a_second_look_up_is_never_used(ours: Authority, tmp_path: Path) -> None:
    """A name server that says public first and loopback ever after."""
    names = Names([PUBLIC], ["127.0.0.1"])
    with receiver(tls=ours.server(tmp_path, NAME)) as hook:
        wire = Wire(hook.port)
        poster = Poster(Guard(resolve=names), connect=wire, certificates=ours.trusting())
        assert poster.post("https://hooks.example.com/", b"", {}) == 204
        with pytest.raises(NoAnswer):
            poster.post("https://hooks.example.com/", b"", {})
    assert (wire.dialled, names.asked, len(hook.received)) == ([(PUBLIC, 443)], 2, 1)


def test_the_standard_port_is_not_in_the_host_header(ours: Authority, tmp_path: Path) -> None:
    with receiver(tls=ours.server(tmp_path, NAME)) as hook:
        poster = Poster(Guard(resolve=Names([PUBLIC])), connect=Wire(hook.port), certificates=ours.trusting())
        poster.post("https://hooks.example.com:443", b"", {})
    assert (hook.received[0].headers["host"], hook.received[0].path) == ("hooks.example.com", "/")


def test_an_address_in_the_url_must_be_in_the_certificate(ours: Authority, tmp_path: Path) -> None:
    for url, address in ((f"https://{PUBLIC}/", PUBLIC), ("https://[2606:2800::1]/", "2606:2800::1")):
        with receiver(tls=ours.server(tmp_path, x509.IPAddress(ip_address(address)))) as hook:
            wire = Wire(hook.port)
            assert Poster(Guard(), connect=wire, certificates=ours.trusting()).post(url, b"", {}) == 204
            assert wire.dialled == [(address, 443)]
            assert hook.received[0].headers["host"] == url.removeprefix("https://").rstrip("/")
            with pytest.raises(BadCertificate):
                Poster(Guard(), connect=wire, certificates=ours.trusting()).post(f"https://{OTHER}/", b"", {})


@pytest.mark.parametrize("fault", ["another name", "expired", "another authority"])
def test_a_certificate_that_does_not_prove_the_name_ends_it(ours: Authority, tmp_path: Path, fault: str) -> None:
    signer = authority("unknown") if fault == "another authority" else ours
    name = x509.DNSName("other.example.com") if fault == "another name" else NAME
    with receiver(tls=signer.server(tmp_path, name, days=-1 if fault == "expired" else 1)) as hook:
        poster = Poster(Guard(resolve=Names([PUBLIC])), connect=Wire(hook.port), certificates=ours.trusting())
        with pytest.raises(BadCertificate) as caught:
            poster.post("https://hooks.example.com/", b"secret", {})
    assert hook.received == []
    assert caught.value.code == "certificate"


def test_the_systems_authorities_are_trusted_by_default_and_ours_is_not(ours: Authority, tmp_path: Path) -> None:
    with receiver(tls=ours.server(tmp_path, NAME)) as hook, pytest.raises(BadCertificate):
        Poster(Guard(resolve=Names([PUBLIC])), connect=Wire(hook.port)).post("https://hooks.example.com/", b"", {})
    assert hook.received == []


def test_the_next_address_is_tried_when_one_is_dead(ours: Authority, tmp_path: Path) -> None:
    with receiver(tls=ours.server(tmp_path, NAME)) as hook:
        wire = Wire(hook.port, dead=(PUBLIC,))
        poster = Poster(Guard(resolve=Names([PUBLIC, OTHER])), connect=wire, certificates=ours.trusting())
        assert poster.post("https://hooks.example.com/", b"", {}) == 204
    assert wire.dialled == [(PUBLIC, 443), (OTHER, 443)]


def test_a_name_with_a_thousand_addresses_costs_few_connections() -> None:
    many = [f"93.184.{i // 250}.{i % 250}" for i in range(1000)]
    wire = Wire(1, dead=tuple(many))
    with pytest.raises(NoAnswer):
        Poster(Guard(resolve=Names(many)), connect=wire).post("https://hooks.example.com/", b"", {})
    assert len(wire.dialled) == 4


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(status: int) -> None:
    with receiver() as inside, receiver() as hook:
        hook.answers = [(status, {"Location": inside.url})]
        assert local().post(hook.url, b"", {}) == status
    assert (len(hook.received), inside.received) == (1, [])


def test_a_proxy_of_the_environment_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with receiver() as proxy, receiver() as hook:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        assert local().post(hook.url, b"", {}) == 204
    assert (len(hook.received), proxy.received) == (1, [])


def test_a_refused_url_opens_no_connection() -> None:
    wire = Wire(1)
    for url in ("https://127.0.0.1/", "https://[::ffff:10.0.0.1]/", "http://example.com/"):
        with pytest.raises(Refused):
            Poster(Guard(), connect=wire).post(url, b"", {})
    assert wire.dialled == []


# Servers that mean ill


Talk = Callable[[socket.socket, threading.Event], None]


@contextmanager
def talking(talk: Talk) -> Iterator[str]:
    """URL of a server that reads a little and then does as `talk` says."""
    over = threading.Event()

    def serve(listener: socket.socket) -> None:
        while not over.is_set():
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with client:
                client.settimeout(10)
                try:
                    client.recv(65_536)
                    talk(client, over)
                except OSError:
                    continue

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        over.set()
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(20)
        assert not thread.is_alive()


def drip(client: socket.socket, over: threading.Event) -> None:
    client.sendall(b"HTTP/1.1 200 OK\r\nX-A: ")
    while not over.wait(0.02):
        client.sendall(b"a")


def continue_forever(client: socket.socket, over: threading.Event) -> None:
    while not over.wait(0.001):
        client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")


def long_head(client: socket.socket, over: threading.Event) -> None:
    client.sendall(b"HTTP/1.1 200 OK\r\n")
    while not over.is_set():
        client.sendall(b"X-A: " + b"a" * 10_000 + b"\r\n")


def silent(client: socket.socket, over: threading.Event) -> None:
    over.wait()


def says(data: bytes) -> Talk:
    return lambda client, _over: client.sendall(data)


ILL: dict[str, Talk] = {
    "drips": drip,
    "says 100 for ever": continue_forever,
    "has a head without end": long_head,
    "is silent": silent,
    "hangs up": says(b""),
    "speaks another protocol": says(b"SSH-2.0-OpenSSH_9.9\r\n"),
    "speaks nonsense": says(b"\x00\xff" * 500),
    "breaks off in the head": says(b"HTTP/1.1 200 OK\r\nX-A"),
    "has a status that is none": says(b"HTTP/1.1 2x0 OK\r\n\r\n"),
    "is a redis": says(b"-ERR unknown command 'POST'\r\n"),
}


@pytest.mark.parametrize("kind", ILL)
def test_a_server_that_means_ill_is_left_in_time_and_all_look_alike(kind: str) -> None:
    with talking(ILL[kind]) as url, pytest.raises(NoAnswer) as caught:
        local().post(url, b"x" * 15_000, {}, seconds=0.4)
    with socket.create_server(("127.0.0.1", 0)) as free:
        closed = f"http://127.0.0.1:{free.getsockname()[1]}/"
    with pytest.raises(NoAnswer) as refused:
        local().post(closed, b"", {}, seconds=5)
    assert (caught.value.code, str(caught.value)) == (refused.value.code, str(refused.value))
    assert "redis" not in str(caught.value).lower()


@pytest.mark.parametrize("kind", ["is silent", "drips", "speaks another protocol", "is a redis"])
def test_a_server_that_answers_tls_with_something_else_is_left_in_time(kind: str) -> None:
    with talking(ILL[kind]) as url, pytest.raises(NoAnswer):
        local().post(url.replace("http:", "https:"), b"", {}, seconds=0.4)


@pytest.mark.parametrize(
    "head", [b"Transfer-Encoding: chunked\r\n", b"Content-Length: 99999999999\r\n", b"Content-Encoding: gzip\r\n"]
)
def test_a_body_without_end_is_not_read(head: bytes) -> None:
    def endless(client: socket.socket, over: threading.Event) -> None:
        client.sendall(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n")
        while not over.is_set():
            client.sendall(b"ffff\r\n" + b"a" * 65_535 + b"\r\n")

    with talking(endless) as url:
        assert local().post(url, b"", {}) == 200


def test_a_name_that_tls_cannot_ask_for_gets_no_answer(ours: Authority, tmp_path: Path) -> None:
    with receiver(tls=ours.server(tmp_path, NAME)) as hook:
        poster = Poster(Guard(resolve=Names([PUBLIC])), connect=Wire(hook.port), certificates=ours.trusting())
        for host in ("xn--a.example", "xn--0.example", "a" * 63 + ".example"):
            with pytest.raises((NoAnswer, BadCertificate)):
                poster.post(f"https://{host}/", b"", {})


def test_the_certificate_check_is_on_in_the_default() -> None:
    poster = Poster(Guard())
    assert poster._certificates.verify_mode == ssl.CERT_REQUIRED
    assert poster._certificates.check_hostname
