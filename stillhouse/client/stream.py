"""Server-sent events, taken up again where a cut stream broke off."""

import time
from collections.abc import Iterator

import httpx2
from pydantic import ValidationError

from stillhouse.client.transport import Transport, pause, unreachable
from stillhouse.spec.errors import BadAnswer, Unavailable
from stillhouse.spec.views import Event

# The service says something at least every 15 seconds; four silences in a row mean that the link is dead.
_SILENCE_SECONDS = 60.0


def stream_events(transport: Transport, path: str, *, after: int) -> Iterator[Event]:
    """Yield events after number `after` until the service says that there will be no more.

    After a cut it asks for what follows the last event seen (Last-Event-ID), so each comes once and none is lost.
    Raises Unreachable when `transport.retries` attempts in a row brought nothing.
    """
    seen, fruitless = after, 0
    while True:
        try:
            for event in _one_connection(transport, path, seen):
                if event is None:
                    return
                fruitless, seen = 0, event.seq
                yield event
            raise httpx2.RemoteProtocolError("the stream ended before the job")
        except (httpx2.TransportError, Unavailable) as error:
            if fruitless >= transport.retries:
                if isinstance(error, Unavailable):
                    raise
                raise unreachable(transport.config.url, error) from error
            time.sleep(pause(fruitless))
            fruitless += 1


def _one_connection(transport: Transport, path: str, seen: int) -> Iterator[Event | None]:
    """Events of one connection; None at the end of the job."""
    headers = {"Accept": "text/event-stream", "Cache-Control": "no-store", "Last-Event-ID": str(seen)}
    with transport.stream(path, headers=headers, silence_seconds=_SILENCE_SECONDS) as response:
        for sent in httpx2.EventSource(response):
            if sent.event == "done":
                yield None
                return
            if sent.data:
                event = _event(sent.data)
                if event.seq > seen:
                    yield event


def _event(data: str) -> Event:
    try:
        return Event.model_validate_json(data)
    except ValidationError as error:
        raise BadAnswer("The stream of events holds something that is not an event.") from error
