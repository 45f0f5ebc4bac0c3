"""A network that cuts: a TCP proxy before a real server, and what it let through."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field


@dataclass
class Cuts:
    """What to cut, and what was seen."""

    needle: bytes
    """Connections whose request holds these bytes are cut; all others pass."""
    after: list[int]
    """How many bytes of the answer's body pass, connection by connection; when the list is used up, all do.

    Below 0: so many bytes pass, then silence, with the connection open.
    """
    requests: list[bytes] = field(default_factory=list)
    """Heads of the requests that held the needle."""
    url: str = ""
    over: threading.Event = field(default_factory=threading.Event)


@contextmanager
def cutting_proxy(upstream: str, needle: bytes, after: list[int]) -> Iterator[Cuts]:
    """Listen on a free port and pass on to `upstream`, except what the cuts say."""
    host, port = upstream.removeprefix("http://").split(":")
    cuts = Cuts(needle=needle, after=after)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        cuts.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        threading.Thread(target=_accept, args=(listener, (host, int(port)), cuts), daemon=True).start()
        yield cuts
        cuts.over.set()
        # A thread that waits in accept() is not woken by close().
        listener.shutdown(socket.SHUT_RDWR)


def _accept(listener: socket.socket, upstream: tuple[str, int], cuts: Cuts) -> None:
    while True:
        try:
            client, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=_relay, args=(client, upstream, cuts), daemon=True).start()


def _relay(client: socket.socket, upstream: tuple[str, int], cuts: Cuts) -> None:
    # A client that is killed in the middle of an answer leaves nobody to send the rest to.
    with suppress(BrokenPipeError, ConnectionResetError):
        _relay_one(client, upstream, cuts)


def _relay_one(client: socket.socket, upstream: tuple[str, int], cuts: Cuts) -> None:
    """One request per connection (Connection: close), so that a cut hits the answer it is meant for."""
    with client, socket.create_connection(upstream) as server:
        head = b""
        while b"\r\n\r\n" not in head:
            if not (chunk := client.recv(65_536)):
                return
            head += chunk
        first, _, rest = head.partition(b"\r\n")
        server.sendall(first + b"\r\nConnection: close\r\n" + rest)
        allowed = None
        if cuts.needle in head:
            cuts.requests.append(head)
            allowed = cuts.after.pop(0) if cuts.after else None
        silent, allowed = allowed is not None and allowed < 0, None if allowed is None else abs(allowed)
        threading.Thread(target=_pump, args=(client, server), daemon=True).start()
        body = False
        while chunk := server.recv(65_536):
            if not body:
                # The server sends a head in one piece.
                end = chunk.index(b"\r\n\r\n") + 4
                client.sendall(chunk[:end])
                chunk, body = chunk[end:], True
            part = chunk if allowed is None else chunk[:allowed]
            client.sendall(part)
            if allowed is not None:
                allowed -= len(part)
                if allowed == 0 and silent:
                    cuts.over.wait()
                    return
                if allowed == 0:
                    # close() alone would wait for the thread that still reads from this socket.
                    client.shutdown(socket.SHUT_RDWR)
                    return


def _pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while chunk := source.recv(65_536):
            target.sendall(chunk)
    except OSError:
        return
