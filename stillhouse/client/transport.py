"""One request: sent, sent again where that is safe, and its failure raised as the error the server meant."""

import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import httpx2
from pydantic import ValidationError

from stillhouse import __version__
from stillhouse.client.config import KEY_VARIABLE, Config
from stillhouse.spec.base import View
from stillhouse.spec.errors import BadAnswer, Problem, StillhouseError, Unauthorized, Unreachable, from_problem

RETRIED = frozenset({429, 502, 503, 504})
"""Statuses that say: not now."""
_FIRST_PAUSE_SECONDS = 0.25
_LONGEST_PAUSE_SECONDS = 8.0
# A server may ask for patience, but not for the rest of the day.
LONGEST_RETRY_AFTER_SECONDS = 60.0
_ERROR_BODY_BYTES = 1024 * 1024

Params = Mapping[str, str | int | float | list[str] | tuple[str, ...] | None]
Answer = TypeVar("Answer", bound=View)


class Transport:
    """Sends requests to one service. Not for use by several threads at once."""

    def __init__(
        self, config: Config, *, timeout: float, retries: int, http_transport: httpx2.BaseTransport | None = None
    ) -> None:
        self.config = config
        self.timeout = timeout
        self.retries = retries
        # Redirects are not followed: the key must not travel to another host.
        self._http = httpx2.Client(
            base_url=config.url,
            timeout=timeout,
            headers={"User-Agent": f"stillhouse/{__version__}", "Accept": "application/json"},
            transport=http_transport,
        )

    def close(self) -> None:
        """Close pooled connections."""
        self._http.close()

    def get(self, path: str, params: Params | None = None, headers: Mapping[str, str] | None = None) -> httpx2.Response:
        """GET, with retries."""
        return self.request("GET", path, params=params, headers=headers, repeatable=True)

    def request(
        self,
        method: str,
        path: str,
        *,
        repeatable: bool,
        params: Params | None = None,
        headers: Mapping[str, str] | None = None,
        json: Any = None,
        content: Callable[[], Iterator[bytes]] | None = None,
        answer_seconds: float | None = None,
        accepted: tuple[int, ...] = (),
    ) -> httpx2.Response:
        """Send and return the whole answer: 2xx, 304, or one of the statuses `accepted`.

        `repeatable`: doing it twice does no harm, so it may be sent again when the answer is lost. `content` makes
        the body anew for each attempt. `answer_seconds`: longest wait for the answer, when it is not the usual one.
        Raises the server's error, or Unreachable.
        """
        options: dict[str, Any] = {"params": params, "headers": headers, "json": json}
        if answer_seconds is not None:
            options["timeout"] = httpx2.Timeout(self.timeout, read=answer_seconds)

        def build() -> httpx2.Request:
            return self._build(method, path, content=None if content is None else content(), **options)

        response = self._send(build, repeatable=repeatable, stream=False, accepted=accepted)
        return response if response.status_code in accepted else checked(response)

    @contextmanager
    def stream(
        self, path: str, *, headers: Mapping[str, str], silence_seconds: float | None = None
    ) -> Iterator[httpx2.Response]:
        """GET, with retries until the answer begins, and hand it over before its body has come.

        `silence_seconds`: longest time without a byte. Raises the server's error, or Unreachable; while the body
        is read, network errors are httpx2's own.
        """
        timeout = httpx2.Timeout(self.timeout, read=silence_seconds or self.timeout)

        def build() -> httpx2.Request:
            return self._build("GET", path, headers=headers, timeout=timeout)

        response = self._send(build, repeatable=True, stream=True)
        try:
            if not response.is_success:
                raise from_problem(_problem(response, _bounded_body(response)))
            yield response
        finally:
            response.close()

    def _send(
        self,
        build: Callable[[], httpx2.Request],
        *,
        repeatable: bool,
        stream: bool,
        accepted: tuple[int, ...] = (),
    ) -> httpx2.Response:
        """Send until there is an answer that is not "not now", or no attempt is left."""
        for attempt in range(self.retries + 1):
            last = attempt == self.retries
            try:
                response = self._http.send(build(), stream=stream)
            except httpx2.RequestError as error:
                if last or not (repeatable or _was_never_sent(error)):
                    raise unreachable(self.config.url, error) from error
                rest = pause(attempt)
            else:
                busy = response.status_code in RETRIED and response.status_code not in accepted
                if last or not (busy and repeatable) or _is_too_long(response):
                    return response
                response.close()
                rest = pause(attempt, response)
            time.sleep(rest)
        raise AssertionError("the last attempt returns or raises")

    def _build(self, method: str, path: str, *, headers: Mapping[str, str] | None, **options: Any) -> httpx2.Request:
        sent = dict(headers or {})
        if self.config.key is not None:
            sent["Authorization"] = f"Bearer {self.config.key}"
        elif path.startswith("/v1/"):
            raise Unauthorized(
                f"There is no API key for {self.config.url}.",
                hint=f"Set {KEY_VARIABLE}; `stillhouse up` shows the first key when it makes it.",
            )
        if options.get("params") is not None:
            options["params"] = {name: value for name, value in options["params"].items() if value is not None}
        try:
            return self._http.build_request(method, path, headers=sent, **options)
        except (httpx2.InvalidURL, UnicodeEncodeError) as error:
            raise Unreachable(
                f"No request can be made to {self.config.url} with this key.",
                hint="Look for stray characters in the address and the key.",
            ) from error


def parse(model: type[Answer], response: httpx2.Response) -> Answer:
    """The answer as a model. Raises BadAnswer when it is not one."""
    try:
        return model.model_validate_json(response.content)
    except ValidationError as error:
        raise BadAnswer(
            f"What {response.request.url} answers is not a {model.__name__.partition('[')[0]}.",
            hint="Check that a Stillhouse service is there, and that client and service are of one version.",
        ) from error


def checked(response: httpx2.Response) -> httpx2.Response:
    """The response when it is 2xx or 304; otherwise raises the error it carries."""
    if response.is_success or response.status_code == 304:
        return response
    raise from_problem(_problem(response, response.content))


def pause(attempt: int, response: httpx2.Response | None = None) -> float:
    """Seconds before the next attempt: what the server asks for, else twice as long each time, with jitter."""
    asked = None if response is None else retry_after(response)
    if asked is not None:
        return asked
    longest = min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2.0**attempt)
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 (spreads clients out; nobody must not guess it)


def retry_after(response: httpx2.Response) -> float | None:
    """Seconds the Retry-After header asks for, from 0 to a bound; None without a readable one. RFC 9110 §10.2.3."""
    asked = _asked_for(response)
    return None if asked is None else min(max(asked, 0.0), LONGEST_RETRY_AFTER_SECONDS)


def _is_too_long(response: httpx2.Response) -> bool:
    """A full queue may ask for many minutes: whoever waits should hear of it now."""
    return response.status_code == 429 and (_asked_for(response) or 0.0) > LONGEST_RETRY_AFTER_SECONDS


def _asked_for(response: httpx2.Response) -> float | None:
    value = response.headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - datetime.now(UTC)).total_seconds()


def unreachable(url: str, error: httpx2.RequestError) -> Unreachable:
    """What a person should read instead of a network library's error."""
    if isinstance(error, httpx2.ConnectTimeout | httpx2.PoolTimeout):
        return Unreachable(f"{url} cannot be reached: no connection in time.", hint="Check address and network.")
    if isinstance(error, httpx2.TimeoutException):
        return Unreachable(f"{url} gave no answer in time.", hint="Try again, or give the client a longer timeout.")
    if isinstance(error, httpx2.ConnectError):
        return Unreachable(
            f"Nothing answers at {url} ({error}).", hint="Is the service running? `stillhouse up` starts it."
        )
    return Unreachable(f"The connection to {url} broke ({error}).", hint="Try again.")


def _was_never_sent(error: httpx2.RequestError) -> bool:
    return isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.PoolTimeout)


def _bounded_body(response: httpx2.Response) -> bytes:
    body = b""
    for chunk in response.iter_bytes():
        body += chunk
        if len(body) > _ERROR_BODY_BYTES:
            break
    return body


def _problem(response: httpx2.Response, body: bytes) -> Problem:
    try:
        return Problem.model_validate_json(body)
    except ValidationError:
        return _problem_of_a_stranger(response)


def _problem_of_a_stranger(response: httpx2.Response) -> Problem:
    """A proxy, or no service of ours at all, answered: all there is to go by is the status."""
    status = response.status_code
    codes = {500: "server_fault", 502: "unavailable", 503: "unavailable", 504: "unavailable"}
    if 300 <= status < 400:
        return BadAnswer(
            f"{response.request.url} points elsewhere (HTTP {status}).",
            hint="Use the address it points to, so that the key is shown to no one else.",
        ).problem()
    reason = f" ({response.reason_phrase})" if response.reason_phrase else ""
    return (
        StillhouseError(
            f"{response.request.url} answered HTTP {status}{reason} without saying why.",
            hint="Check that the address is that of a Stillhouse service.",
        )
        .problem()
        .model_copy(update={"status": status, "code": codes.get(status, "")})
    )
