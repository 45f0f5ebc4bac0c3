"""Retries, errors and odd answers. The network is not ours: where it must misbehave, a test plays it."""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx2
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.problems import render
from stillhouse.client import Client
from stillhouse.spec.errors import (
    BadAnswer,
    FieldError,
    NotFound,
    ServerFault,
    StillhouseError,
    Unauthorized,
    Unavailable,
    Unreachable,
    error_classes,
)
from tests.house import SPEC, serve

VERSION = {"version": "0.1.0", "api": "v1", "database_revision": None}
HTTP_ERRORS = [cls for cls in error_classes().values() if cls.status]
LOST = (httpx2.ReadError, httpx2.ReadTimeout, httpx2.RemoteProtocolError, httpx2.WriteError)
NEVER_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout)


@pytest.fixture
def rests(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Every pause the client makes, without making it."""
    made: list[float] = []
    monkeypatch.setattr(time, "sleep", made.append)
    return made


def playing(answers: list[Callable[[], httpx2.Response]], **options: object) -> tuple[Client, list[httpx2.Request]]:
    """A client whose network gives these answers, one after another, and what it was asked."""
    asked: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(request)
        return answers[len(asked) - 1]()

    return Client("http://house", "shk_x", http_transport=httpx2.MockTransport(answer), **options), asked  # type: ignore[arg-type]


def good() -> httpx2.Response:
    return httpx2.Response(200, json=VERSION)


def busy(status: int = 503, **headers: str) -> Callable[[], httpx2.Response]:
    return lambda: httpx2.Response(status, headers={name.replace("_", "-"): value for name, value in headers.items()})


def broken(error: type[httpx2.TransportError]) -> Callable[[], httpx2.Response]:
    def fail() -> httpx2.Response:
        raise error("the link broke")

    return fail


@pytest.mark.parametrize("fault", [*map(broken, LOST + NEVER_SENT), *map(busy, (429, 502, 503, 504))])
def test_a_request_that_only_reads_is_sent_again(fault: Callable[[], httpx2.Response], rests: list[float]) -> None:
    client, asked = playing([fault, fault, good])
    assert client.version().version == "0.1.0"
    assert len(asked) == 3
    assert len(rests) == 2


def test_pauses_grow_and_differ(rests: list[float]) -> None:
    for _ in range(5):
        client, _ = playing([busy()] * 4 + [good], retries=4)
        client.version()
    rounds = [rests[start : start + 4] for start in range(0, 20, 4)]
    assert all(sorted(once) == once for once in rounds)
    assert len({once[0] for once in rounds}) > 1
    assert max(rests) < 10


def test_retry_after_is_honoured_in_seconds_and_as_a_date(rests: list[float]) -> None:
    client, _ = playing([busy(429, Retry_After="7"), busy(Retry_After="0"), good])
    client.version()
    assert rests == [7.0, 0.0]
    rests.clear()
    moment = format_datetime(datetime.now(UTC) + timedelta(seconds=20), usegmt=True)
    client, _ = playing([busy(Retry_After=moment), good])
    client.version()
    assert 15 < rests[0] <= 20


@pytest.mark.parametrize("asked_for", ["999999", "99999999999999999999999", "Fri, 31 Dec 2100 23:59:59 GMT"])
def test_a_server_cannot_make_the_client_wait_for_ever(rests: list[float], asked_for: str) -> None:
    client, _ = playing([busy(Retry_After=asked_for), good])
    client.version()
    assert rests == [60.0]


def test_a_limit_that_asks_for_minutes_is_told_at_once(rests: list[float]) -> None:
    client, asked = playing([busy(429, Retry_After="600"), good])
    with pytest.raises(StillhouseError):
        client.version()
    assert (len(asked), rests) == (1, [])


@pytest.mark.parametrize("nonsense", ["soon", "-5", "", "٣"])
def test_a_retry_after_nobody_can_read_is_ignored(rests: list[float], nonsense: str) -> None:
    client, _ = playing([lambda: httpx2.Response(503, headers=[(b"retry-after", nonsense.encode())]), good])
    client.version()
    assert rests[0] < 1


def test_attempts_end_and_the_last_error_is_raised(rests: list[float]) -> None:
    client, asked = playing([broken(httpx2.ReadError)] * 9, retries=2)
    with pytest.raises(Unreachable, match="house"):
        client.version()
    assert len(asked) == 3
    client, asked = playing([busy()] * 9, retries=0)
    with pytest.raises(Unavailable):
        client.version()
    assert len(asked) == 1
    assert len(rests) == 2


@pytest.mark.parametrize("status", [400, 404, 409, 413, 500])
def test_an_error_that_would_come_again_is_not_asked_for_again(rests: list[float], status: int) -> None:
    client, asked = playing([busy(status)])
    with pytest.raises(StillhouseError):
        client.version()
    assert len(asked) == 1
    assert rests == []


def test_a_submission_is_repeated_under_one_key_and_a_cancel_as_well(rests: list[float]) -> None:
    client, asked = playing([broken(httpx2.ReadError), busy(502), busy(404)])
    with pytest.raises(NotFound):
        client.jobs.create(SPEC)
    assert len({request.headers["idempotency-key"] for request in asked}) == 1
    assert len({request.content for request in asked}) == 1
    client, asked = playing([broken(httpx2.ReadError), busy(404)])
    with pytest.raises(NotFound):
        client.jobs.cancel("job_x")
    assert len(asked) == 2


@pytest.mark.parametrize("fault", [*map(broken, LOST), busy(503, Retry_After="1"), busy(429)])
def test_an_upload_is_not_repeated_once_it_may_have_arrived(
    rests: list[float], fault: Callable[[], httpx2.Response], tmp_path: object
) -> None:
    client, asked = playing([fault])
    with pytest.raises(StillhouseError):
        client.datasets.add(__file__)
    assert len(asked) == 1


@pytest.mark.parametrize("error", NEVER_SENT)
def test_an_upload_that_never_left_is_sent_again_whole(rests: list[float], error: type[httpx2.TransportError]) -> None:
    client, asked = playing([broken(error), busy(404)])
    with pytest.raises(NotFound):
        client.datasets.add(__file__)
    assert len(asked) == 2


@pytest.fixture(scope="module")
def raising() -> Iterator[str]:
    """A server that renders every error of the tree with the service's own code."""

    def fail(request: Request) -> Response:
        wrong = [FieldError(pointer="/student/hidden/0", code="too_small", detail="Should be at least 1.")]
        cls = error_classes()[request.path_params["code"]]
        return render(cls("What went wrong.", hint="What to do.", errors=wrong), "req_of_this_call")

    app = Starlette(routes=[Route("/v1/models/{code}", fail)])
    with serve(uvicorn.Config(app, log_level="error")) as url:
        yield url


@pytest.mark.parametrize("cls", HTTP_ERRORS, ids=lambda cls: cls.code)
def test_every_error_of_the_tree_is_raised_again_as_it_was(raising: str, cls: type[StillhouseError]) -> None:
    with Client(raising, "shk_x", retries=0) as client, pytest.raises(StillhouseError) as caught:
        client.models.get(cls.code)
    error = caught.value
    assert type(error) is cls
    assert (error.detail, error.hint) == ("What went wrong.", "What to do.")
    assert [field.pointer for field in error.errors] == ["/student/hidden/0"]
    assert error.request_id == "req_of_this_call"


def test_the_errors_only_a_client_raises_have_no_status() -> None:
    assert {cls for cls in error_classes().values() if not cls.status} == {Unreachable, BadAnswer}


@pytest.mark.parametrize(
    ("status", "expected"),
    [(401, Unauthorized), (404, NotFound), (418, StillhouseError), (500, ServerFault), (502, Unavailable)],
)
def test_a_proxy_that_answers_without_a_problem_is_understood_by_its_status(
    status: int, expected: type[StillhouseError]
) -> None:
    client, _ = playing([lambda: httpx2.Response(status, html="<h1>no</h1>")], retries=0)
    with pytest.raises(expected, match=str(status)) as caught:
        client.version()
    assert type(caught.value) is expected


def test_the_key_is_not_carried_to_where_a_redirect_points() -> None:
    client, asked = playing([lambda: httpx2.Response(302, headers={"Location": "http://elsewhere/"})])
    with pytest.raises(BadAnswer, match="elsewhere"):
        client.version()
    assert [request.url.host for request in asked] == ["house"]


@pytest.mark.parametrize("body", [b"<html>hello</html>", b"", b"[]", b'{"version": 3}', b"\xff"])
def test_an_answer_that_is_none_of_ours_is_named_as_such(body: bytes) -> None:
    client, _ = playing([lambda: httpx2.Response(200, content=body)])
    with pytest.raises(BadAnswer, match="Version"):
        client.version()


def test_a_service_that_is_not_ready_says_which_part() -> None:
    checks = {"ready": False, "checks": {"database": "ok", "broker": "away"}, "workers": 0}
    client, asked = playing([lambda: httpx2.Response(503, json=checks)])
    assert client.ready().checks["broker"] == "away"
    assert len(asked) == 1
    client, _ = playing([lambda: httpx2.Response(503, html="<h1>proxy</h1>")])
    with pytest.raises(Unavailable):
        client.ready()


def test_without_a_key_only_the_open_routes_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(request)
        return good()

    with Client("http://house", http_transport=httpx2.MockTransport(answer)) as client:
        client.version()
        with pytest.raises(Unauthorized, match="http://house"):
            client.students()
    assert [request.url.path for request in asked] == ["/version"]


@pytest.mark.parametrize("key", ["shk_ü", "shk_\n", "shk_ x\r\nX-Evil: 1"])
def test_a_key_that_fits_no_header_is_an_error_and_no_traceback(key: str) -> None:
    with Client("http://127.0.0.1:9", key, retries=0) as client, pytest.raises(Unreachable):
        client.students()
