"""uvicorn's HTTP protocol with two bounds it lacks: on the size of a request's head, and on the time it may take."""

import asyncio
from asyncio.events import TimerHandle
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES = 64 * 1024
"""Request line and headers, beyond what arrives at once."""
HEAD_SECONDS = 30
"""From the connection, or from the first bytes of a further request, to the end of the headers."""


class BoundedHttp(HttpToolsProtocol):
    """Closes connections that send a head without end, or slowly. Costs nothing for a head that comes in one piece."""

    _in_head = True
    _head_bytes = 0
    _clock: TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Start the clock: a caller may connect and say nothing."""
        super().connection_made(transport)
        self._start_clock()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._stop_clock()
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
        self._in_head, self._head_bytes = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._in_head = False
        super().on_headers_complete()

    def _refuse(self) -> None:
        if not self.transport.is_closing():
            self.send_400_response("The head of the request is too large or too slow.")

    def _start_clock(self) -> None:
        if self._clock is None:
            self._clock = asyncio.get_running_loop().call_later(HEAD_SECONDS, self._refuse)

    def _stop_clock(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None
