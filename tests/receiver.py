"""A receiver of webhooks: a real HTTP or HTTPS server on loopback that keeps what it was sent."""

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Received:
    """One request."""

    path: str
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes
    name: str | None
    """The name asked for in TLS."""


@dataclass
class Receiver:
    """What a receiver was sent, and what it answers."""

    port: int = 0
    received: list[Received] = field(default_factory=list)
    answers: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    """(status, headers), request by request; when used up: 204."""
    hold: threading.Event | None = None
    """When given, no answer comes before it is set."""

    @property
    def url(self) -> str:
        """Address of a hook."""
        return f"http://127.0.0.1:{self.port}/hook/s3cret?token=t0ken"


@contextmanager
def receiver(*, tls: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    """Serve on a free port until the block ends."""
    kept, lock = Receiver(), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        name: str | None = None

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {key.lower(): value for key, value in self.headers.items()}
            with lock:
                kept.received.append(Received(self.path, headers, body, names.pop() if names else None))
                status, more = kept.answers.pop(0) if kept.answers else (204, {})
            if kept.hold is not None:
                kept.hold.wait(30)
            self.send_response(status)
            for key, value in more.items():
                self.send_header(key, value)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A caller that breaks the handshake off is part of the tests."""

    names: list[str] = []
    server = Server(("127.0.0.1", 0), Handler)
    if tls is not None:
        tls.sni_callback = lambda _socket, name, _context: names.append(name)
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    kept.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield kept
    server.shutdown()
    thread.join()
    server.server_close()
