"""The outermost layer of every answer: a request id, the security headers, and the last resort for exceptions."""

import re
import traceback
from collections.abc import Callable
from secrets import token_hex

import structlog
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import audit, rates
from api.answers import Ready
from api.problems import render, server_fault
from stillhouse.spec.errors import ServerFault

log = structlog.get_logger()

_REQUEST_ID = re.compile(rb"[A-Za-z0-9_-]{1,64}")

SECURITY_HEADERS: tuple[tuple[bytes, bytes], ...] = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"x-frame-options", b"DENY"),
)
_OVER_TLS = (b"strict-transport-security", b"max-age=31536000")
"""Where a proxy the service trusts says that the caller came by https."""
_UNKEPT = (b"cache-control", b"no-store")
"""Of answers that do not say how long they may be kept."""
POLICY = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")
"""For answers that are no pages. A page brings a policy of its own."""


class Edge:
    """Pure ASGI: streams pass through untouched. `at_hand` may know an answer that needs no route."""

    def __init__(self, app: ASGIApp, at_hand: Callable[[Scope], Ready | None]) -> None:
        self.app, self.at_hand = app, at_hand

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = request_id_of(scope)
        head = scope["method"] == "HEAD"
        added = [(b"x-request-id", request_id.encode()), *SECURITY_HEADERS]
        started = False

        async def send_completed(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                if audit.is_due(scope):
                    await run_in_threadpool(audit.record, scope, message, request_id)
                headers = message["headers"]
                given = dict(headers)
                policy = [header for header in (POLICY, _UNKEPT) if header[0] not in given]
                if scope["scheme"] == "https":
                    policy.append(_OVER_TLS)
                told = rates.headers(scope["state"]["rates"]) if "rates" in scope.get("state", ()) else ()
                message["headers"] = [*headers, *added, *policy, *told]
            elif head and message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        try:
            if (ready := self.at_hand(scope)) is not None:
                await _send_ready(ready, send_completed)
                return
            if head:
                # HEAD is GET without the body, on every route; those with large bodies ask `wants_no_body`.
                scope = {**scope, "method": "GET"}
            scope.setdefault("state", {}).update(request_id=request_id, head=head)
            await self.app(scope, receive, send_completed)
        except ClientDisconnect:
            return  # nobody is left to be answered
        except Exception:
            # As text: a renderer that prints local variables would print keys.
            text = traceback.format_exc()
            log.error("unhandled", request_id=request_id, method=scope["method"], path=scope["path"], traceback=text)
            if started:
                raise  # the connection must break, so that nobody takes half an answer for a whole one
            scope.get("state", {})["problem"] = ServerFault.code
            await render(server_fault(), request_id)(scope, receive, send_completed)


async def _send_ready(ready: Ready, send: Send) -> None:
    status, headers, body = ready
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def wants_no_body(request: Request) -> bool:
    """True for HEAD: the headers are all the caller will get."""
    head: bool = request.state.head
    return head


def request_id_of(scope: Scope) -> str:
    """The caller's own request id when it has the form of one, else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            return str(value, "ascii") if _REQUEST_ID.fullmatch(value) else _new_request_id()
    return _new_request_id()


def _new_request_id() -> str:
    # Nothing sorts by it, so it need not be one of our slower ids.
    return "req_" + token_hex(12)
