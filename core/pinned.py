"""One POST to a judged address: no second look-up, no redirect, no proxy, bounded in time and in bytes.

The connection goes to the addresses the guard found; Host header, SNI and certificate check keep the URL's own name.
"""

import ssl
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import httpcore2

from core.outbound import BadCertificate, Guard, NoAnswer, Target

POST_SECONDS = 15.0
"""From the connection to the status line of the answer; the look-up before it is bounded by the system's resolver."""
_ANSWER_BYTES = 64 * 1024
_WRITE_BYTES = 4096
_CONNECT_SECONDS = 5.0

Connect = Callable[[str, int, float], httpcore2.NetworkStream]
"""(address, port, seconds) → an open connection. Raises httpcore2.ConnectError, ConnectTimeout."""

_AT_FAULT = (
    httpcore2.NetworkError,
    httpcore2.TimeoutException,
    httpcore2.ProtocolError,
    OSError,
    ValueError,  # a name that TLS cannot ask for
)


def connect_tcp(address: str, port: int, seconds: float) -> httpcore2.NetworkStream:
    """Open a connection to an address."""
    return httpcore2.SyncBackend().connect_tcp(address, port, timeout=seconds, socket_options=[])


class Poster:
    """Sends requests the guard allows. Safe to share between threads."""

    def __init__(
        self, guard: Guard, *, connect: Connect = connect_tcp, certificates: ssl.SSLContext | None = None
    ) -> None:
        """`certificates`: whom to trust; None: whom the system trusts (SSL_CERT_FILE is obeyed)."""
        self._guard, self._connect = guard, connect
        self._certificates = certificates or httpcore2.default_ssl_context()

    def post(self, url: str, body: bytes, headers: Mapping[str, str], *, seconds: float = POST_SECONDS) -> int:
        """POST `body` once and return the status; the answer's body is never read.

        Raises Refused, NoAnswer, BadCertificate.
        """
        target = self._guard.locate(url)
        backend = _Pinned(target, self._connect, time.monotonic() + seconds)
        called = httpcore2.URL(
            scheme=target.url.scheme, host=target.url.host, port=target.url.port, target=target.url.target
        )
        everything = [("Host", target.url.authority), ("Connection", "close"), *headers.items()]
        try:
            with (
                httpcore2.ConnectionPool(ssl_context=self._certificates, network_backend=backend) as pool,
                pool.stream("POST", called, headers=everything, content=body) as response,
            ):
                return response.status
        except _AT_FAULT as error:
            raise _failure(error) from None


class _Pinned(httpcore2.NetworkBackend):
    """Connects to the target's addresses, whatever host it is asked for."""

    def __init__(self, target: Target, connect: Connect, deadline: float) -> None:
        self._target, self._connect, self._deadline = target, connect, deadline

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.NetworkStream:
        """The first address that takes the connection."""
        failed: Exception = httpcore2.ConnectError("no address")
        for address in self._target.addresses:
            seconds = min(_CONNECT_SECONDS, _left(self._deadline))
            try:
                stream = self._connect(address, self._target.url.port, seconds)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failed = error
                continue
            return _Bounded(stream, self._deadline)
        raise failed


class _Bounded(httpcore2.NetworkStream):
    """A connection that ends at a moment, and gives so many bytes at most: a limit per read alone never ends."""

    def __init__(self, stream: httpcore2.NetworkStream, deadline: float, allowed: int = _ANSWER_BYTES) -> None:
        self._stream, self._deadline, self._allowed = stream, deadline, allowed

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Up to `max_bytes`, while the answer's head may still grow."""
        if self._allowed <= 0:
            raise httpcore2.RemoteProtocolError("the answer's head is too large")
        data = self._stream.read(min(max_bytes, self._allowed), timeout=_left(self._deadline))
        self._allowed -= len(data)
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """In pieces, so that a receiver that takes byte after byte meets the deadline too."""
        for piece in _pieces(buffer):
            self._stream.write(piece, timeout=_left(self._deadline))

    def close(self) -> None:
        """Close."""
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        """TLS with the URL's own name."""
        inner = self._stream.start_tls(ssl_context, server_hostname=server_hostname, timeout=_left(self._deadline))
        return _Bounded(inner, self._deadline, self._allowed)

    def get_extra_info(self, info: str) -> Any:
        """As the connection has it."""
        return self._stream.get_extra_info(info)


def _pieces(buffer: bytes) -> Iterable[bytes]:
    return (buffer[start : start + _WRITE_BYTES] for start in range(0, len(buffer), _WRITE_BYTES))


def _left(deadline: float) -> float:
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise httpcore2.ReadTimeout("the time is up")
    return seconds


def _failure(error: BaseException) -> NoAnswer | BadCertificate:
    here: BaseException | None = error
    while here is not None:
        if isinstance(here, ssl.SSLCertVerificationError):
            return BadCertificate(reason=here.verify_message)
        here = here.__cause__ or here.__context__
    return NoAnswer(reason=type(error).__name__)
