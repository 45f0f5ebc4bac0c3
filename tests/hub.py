"""What a job asks of the Hugging Face Hub, answered on loopback: one file, which lies at another address."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "0" * 40


@dataclass
class FakeHub:
    """Where it is, and who asked with what."""

    content: bytes
    status: int = 302
    """302: the file lies at the other address, as with the Hub's CDN. Else: what it answers."""
    url: str = ""
    other: str = ""
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    """(method, Authorization) of each request to the hub."""
    fetched: list[tuple[str, str | None]] = field(default_factory=list)
    """The same, of the other address."""


@contextmanager
def fake_hub(content: bytes, **more: Any) -> Iterator[FakeHub]:
    """Serve on two free ports until the block ends."""
    hub = FakeHub(content, **more)

    class Front(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            hub.asked.append((self.command, self.headers["authorization"]))
            self.send_response(hub.status)
            self.send_header("Location", f"{hub.other}/file")
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("X-Linked-Etag", '"etag"')
            self.send_header("X-Linked-Size", str(len(hub.content)))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_GET(self) -> None:
            self.do_HEAD()

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet."""

    class Behind(Front):
        def do_HEAD(self) -> None:
            hub.fetched.append((self.command, self.headers["authorization"]))
            self.send_response(200)
            self.send_header("Content-Length", str(len(hub.content)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(hub.content)

        def do_GET(self) -> None:
            self.do_HEAD()

    servers = [ThreadingHTTPServer(("127.0.0.1", 0), kind) for kind in (Front, Behind)]
    hub.url, hub.other = (f"http://127.0.0.1:{server.server_address[1]}" for server in servers)
    threads = [threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True) for server in servers]
    for thread in threads:
        thread.start()
    yield hub
    for server, thread in zip(servers, threads, strict=True):
        server.shutdown()
        thread.join()
        server.server_close()
