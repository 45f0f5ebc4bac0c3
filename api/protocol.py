"""uvicorn's HTTP protocol with the bounds it lacks: on the size of a request's head, on the time it may take, on how
long a caller may leave an answer unread, and on what is still sent after the answer."""

import asyncio
from asyncio.events import TimerHandle
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from api.middleware import POLICY, SECURITY_HEADERS
from api.strangers import Connections
from stillhouse.spec.errors import BadRequest, StillhouseError, Unavailable

MAX_HEAD_BYTES = 64 * 1024
"""Request line and headers, beyond what arrives at once."""
HEAD_SECONDS = 30
"""From the connection, or from the first bytes of a further request, to the end of the headers."""


UNREAD_SECONDS = 60
"""Longest time in which a caller takes none of an answer that waits for it."""
LEFTOVER_SECONDS = 10
"""For the rest of a body whose request was answered before all of it had come."""
_REFUSAL = BadRequest("The request is malformed, or its head is too large or too slow.")
_NO_ROOM = Unavailable(
    "There are too many open connections.", hint="Close some, or use one for several requests; then try again."
)


class BoundedHttp(HttpToolsProtocol):
    """Closes connections that send a head without end, or slowly, that do not read, or that go on sending a body
    nobody wants. Costs nothing for a head that comes in one piece."""

    places: Connections | None = None
    """Those of the whole process; a subclass has them (`within`)."""
    _in_head = True
    _head_bytes = 0
    _clock: TimerHandle | None = None
    _in_message = False
    _unread: TimerHandle | None = None
    _leftover: TimerHandle | None = None

    @classmethod
    def within(cls, connections: Connections) -> type["BoundedHttp"]:
        """The protocol of one process."""
        return type("BoundedHttp", (cls,), {"places": connections})

    def connection_made(self, transport: Any) -> None:
        """Start the clock: a caller may connect and say nothing."""
        super().connection_made(transport)
        # A proxy's address, and not what it says of a request: that comes later, and is no connection.
        self._address = self.client[0] if self.client else ""
        if self.places is not None and not self.places.opened(self._address):
            self._send_refusal(_NO_ROOM, b"retry-after: 2")
            return
        self._start_clock()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        if self.places is not None:
            self.places.closed(self._address)
        self._stop_clock()
        self.resume_writing()
        self._stop_leftover()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what belongs to an unfinished head; the parser itself would gather it without end."""
        was_in_head = self._in_head
        super().data_received(data)
        if not self._in_head or self.transport.is_closing():
            self._stop_clock()
            return
        self._start_clock()
        if was_in_head:
            self._head_bytes += len(data)
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refuse()

    def on_message_begin(self) -> None:
        """A request begins."""
        self._in_head, self._in_message, self._head_bytes = True, True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The body is whole."""
        self._in_message = False
        self._stop_leftover()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """The answer is sent. A body that still comes is read and dropped for a while: a caller that sends before it
        listens must be able to read why it was refused."""
        super().on_response_complete()
        if self._in_message and not self._in_head and self.cycle.response_complete and self._leftover is None:
            self._leftover = asyncio.get_running_loop().call_later(LEFTOVER_SECONDS, self.transport.close)

    def pause_writing(self) -> None:
        """The caller does not keep up."""
        super().pause_writing()
        if self._unread is None:
            self._unread = asyncio.get_running_loop().call_later(UNREAD_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """It reads on."""
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no request, in the form of all other refusals."""
        self._send_refusal(_REFUSAL)

    def _send_refusal(self, error: StillhouseError, *more: bytes) -> None:
        body = error.problem().model_dump_json(exclude_none=True).encode()
        head = [
            b"HTTP/1.1 %d %s" % (error.status, HTTPStatus(error.status).phrase.encode()),
            b"content-type: application/problem+json",
            b"content-length: %d" % len(body),
            b"connection: close",
            *more,
            *(b"%s: %s" % header for header in (*SECURITY_HEADERS, POLICY)),
        ]
        self.transport.write(b"\r\n".join(head) + b"\r\n\r\n" + body)
        self.transport.close()

    def _refuse(self) -> None:
        if not self.transport.is_closing():
            self.send_400_response("")

    def _stop_leftover(self) -> None:
        if self._leftover is not None:
            self._leftover.cancel()
            self._leftover = None

    def _start_clock(self) -> None:
        if self._clock is None:
            self._clock = asyncio.get_running_loop().call_later(HEAD_SECONDS, self._refuse)

    def _stop_clock(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None
