"""Following a job: events in pages and as a stream, the log, the series of numbers."""

import json
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from api.services import following
from models import lifecycle
from stillhouse.spec.views import Event, JobError, MetricSeries
from tests.house import SPEC, House

PostJob = Callable[..., str]


def seqs(answer: Any) -> list[int]:
    return [event["seq"] for event in answer.json()["data"]]


def test_events_come_in_order_and_in_pages(http: TestClient, post_job: PostJob, house: House) -> None:
    lease = house.take_up(post_job())
    for number in range(5):
        house.say(lease, f"line {number}")
    url = f"/v1/jobs/{lease.job_id}/events"
    assert seqs(http.get(url)) == [1, 2, 3, 4, 5, 6, 7]
    first = http.get(url, params={"limit": 4})
    assert (seqs(first), first.json()["has_more"]) == ([1, 2, 3, 4], True)
    rest = http.get(url, params={"limit": 4, "after": first.json()["next_cursor"]})
    assert (seqs(rest), rest.json()["has_more"]) == ([5, 6, 7], False)
    house.say(lease, "later")
    assert seqs(http.get(url, params={"after": rest.json()["next_cursor"]})) == [8]


def test_events_can_be_chosen_by_type(http: TestClient, post_job: PostJob, house: House) -> None:
    lease = house.take_up(post_job())
    house.say(lease, "hello")
    url = f"/v1/jobs/{lease.job_id}/events"
    statuses = http.get(url, params={"type": "status"}).json()["data"]
    assert [event["data"]["status"] for event in statuses] == ["queued", "running"]
    assert [event["message"] for event in http.get(url, params={"type": "log"}).json()["data"]] == ["hello"]


def test_the_log_is_lines_of_text_whatever_the_messages_hold(http: TestClient, post_job: PostJob, house: House) -> None:
    lease = house.take_up(post_job())
    house.say(lease, "two\nlines\r\n\x85and a tab\t.")
    house.fail(lease, JobError(code="engine_fault", detail="It broke.", hint="Tell us."))
    answer = http.get(f"/v1/jobs/{lease.job_id}/log")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    lines = answer.text.splitlines()
    assert len(lines) == 4
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ (info   |error  ) \S.*", line) for line in lines)
    assert lines[2].endswith("two lines and a tab .")
    assert lines[3].endswith("error   It broke.")


def test_a_long_log_is_whole(
    http: TestClient, post_job: PostJob, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "_BATCH", 3)
    lease = house.take_up(post_job())
    for number in range(10):
        house.say(lease, f"line {number}")
    lines = http.get(f"/v1/jobs/{lease.job_id}/log").text.splitlines()
    assert [line.rpartition("line ")[2] for line in lines[2:]] == [str(number) for number in range(10)]


def test_series_are_chosen_cut_and_thinned(http: TestClient, post_job: PostJob, house: House) -> None:
    lease = house.take_up(post_job())
    for step in range(1, 51):
        house.advance(lease, step=step, loss=1 / step, accuracy=step / 50)
    url = f"/v1/jobs/{lease.job_id}/metrics"
    whole = MetricSeries.model_validate_json(http.get(url).content)
    assert [series.name for series in whole.series] == ["distilling/accuracy", "distilling/loss"]
    assert [step for step, _ in whole.series[1].points] == list(range(1, 51))
    one = http.get(url, params={"names": "distilling/loss", "first_step": 10, "last_step": 20}).json()["series"]
    assert [point[0] for point in one[0]["points"]] == list(range(10, 21))
    two = http.get(url, params={"names": ["distilling/loss", "distilling/accuracy"], "max_points": 5}).json()
    for series in two["series"]:
        assert len(series["points"]) == 5
        assert [series["points"][0][0], series["points"][-1][0]] == [1, 50]
        assert series["total_points"] == 50
    assert http.get(url, params={"names": "nothing"}).json()["series"] == []


def test_a_step_told_by_two_attempts_has_the_value_of_the_latest(
    http: TestClient, post_job: PostJob, house: House
) -> None:
    lease = house.take_up(post_job())
    house.advance(lease, step=1, loss=9)
    with house.database.write() as session:
        assert lifecycle.hand_back(session, lease, "The worker goes.")
    again = house.take_up(lease.job_id)
    house.advance(again, step=1, loss=2)
    series = http.get(f"/v1/jobs/{lease.job_id}/metrics").json()["series"]
    assert series[0]["points"] == [[1, 2.0]]


Sent = tuple[str | None, str, dict[str, Any]]


def sent_events(lines: Iterator[str]) -> Iterator[Sent]:
    """(id, event, data) of each server-sent event."""
    fields: dict[str, str] = {}
    for line in lines:
        if line == "":
            if "data" in fields:
                yield fields.get("id"), fields["event"], json.loads(fields["data"])
            fields = {}
        elif not line.startswith(":"):
            name, _, value = line.partition(": ")
            fields[name] = value


@pytest.fixture
def caller(live: str, api_key: str) -> Iterator[httpx2.Client]:
    """A caller over a real socket."""
    with httpx2.Client(base_url=live, headers={"Authorization": f"Bearer {api_key}"}, timeout=30) as client:
        yield client


STREAM = {"Accept": "text/event-stream"}


def test_a_stream_tells_what_happens_until_the_job_is_over(caller: httpx2.Client, digits: str, house: House) -> None:
    job_id = caller.post("/v1/jobs", json=SPEC).json()["id"]

    def work() -> None:
        lease = house.take_up(job_id)
        for number in range(5):
            house.say(lease, f"line {number}")
        house.succeed(lease, {"model.onnx": b"x"})

    worker = threading.Thread(target=work)
    with caller.stream("GET", f"/v1/jobs/{job_id}/events", headers=STREAM) as answer:
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-accel-buffering"] == "no"
        events = sent_events(answer.iter_lines())
        assert next(events)[:2] == ("1", "status")
        worker.start()
        rest = list(events)
    worker.join()
    assert [sent[1] for sent in rest] == ["status", *["log"] * 5, "status", "done"]
    assert [sent[0] for sent in rest] == [str(seq) for seq in (2, 3, 4, 5, 6, 7, 8, 8)]
    assert Event.model_validate(rest[-2][2]).data["status"] == "succeeded"


def test_a_broken_stream_goes_on_without_gap_or_repetition(caller: httpx2.Client, digits: str, house: House) -> None:
    job_id = caller.post("/v1/jobs", json=SPEC).json()["id"]
    lease = house.take_up(job_id)
    for number in range(6):
        house.say(lease, f"line {number}")
    seen: list[int] = []
    url = f"/v1/jobs/{job_id}/events"
    for _ in range(3):  # each connection breaks after two events
        headers = STREAM | ({"Last-Event-ID": str(seen[-1])} if seen else {})
        with caller.stream("GET", url, headers=headers) as answer:
            events = sent_events(answer.iter_lines())
            seen += [int(str(next(events)[0])) for _ in range(2)]
    house.succeed(lease, {"model.onnx": b"x"})
    with caller.stream("GET", url, headers=STREAM | {"Last-Event-ID": str(seen[-1])}) as answer:
        rest = list(sent_events(answer.iter_lines()))
    assert seen + [int(str(sent[0])) for sent in rest[:-1]] == list(range(1, 10))
    assert rest[-1][1] == "done"


def test_a_stream_of_a_job_that_is_over_ends_at_once(http: TestClient, post_job: PostJob) -> None:
    job_id = post_job()
    http.post(f"/v1/jobs/{job_id}/cancel")
    url = f"/v1/jobs/{job_id}/events"
    whole = list(sent_events(iter(http.get(url, headers=STREAM).text.split("\n"))))
    assert [sent[1] for sent in whole] == ["status", "status", "done"]
    after = list(sent_events(iter(http.get(f"{url}?after=1", headers=STREAM).text.split("\n"))))
    assert [sent[0] for sent in after] == ["2", "2"]
    logs = list(sent_events(iter(http.get(f"{url}?type=log", headers=STREAM).text.split("\n"))))
    assert [sent[1] for sent in logs] == ["done"]


def test_a_stream_of_very_many_events_is_whole(
    http: TestClient, post_job: PostJob, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "_BATCH", 3)
    lease = house.take_up(post_job())
    for number in range(10):
        house.say(lease, f"line {number}")
    house.succeed(lease, {"model.onnx": b"x"})
    text = http.get(f"/v1/jobs/{lease.job_id}/events", headers=STREAM).text
    sent = list(sent_events(iter(text.split("\n"))))
    assert [int(str(number)) for number, _, _ in sent] == [*range(1, 14), 13]
    assert sent[-1][1] == "done"


def test_a_stream_ends_when_the_database_goes_away_and_goes_on_later(
    caller: httpx2.Client, digits: str, house: House, app: Any
) -> None:
    job_id = caller.post("/v1/jobs", json=SPEC).json()["id"]
    engine, url = app.state.parts.database.engine, f"/v1/jobs/{job_id}/events"

    def fail(_conn: object, _cursor: object, statement: str, *_: object) -> None:
        raise OperationalError(statement, None, Exception("gone"))

    with caller.stream("GET", url, headers=STREAM) as answer:
        events = sent_events(answer.iter_lines())
        assert next(events)[0] == "1"
        event.listen(engine, "before_cursor_execute", fail)
        assert list(events) == []
        event.remove(engine, "before_cursor_execute", fail)
    caller.post(f"/v1/jobs/{job_id}/cancel")
    with caller.stream("GET", url, headers=STREAM | {"Last-Event-ID": "1"}) as answer:
        assert [sent[1] for sent in sent_events(answer.iter_lines())] == ["status", "done"]


def test_a_silent_stream_says_that_it_lives(
    caller: httpx2.Client, digits: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "PING_SECONDS", 0.1)
    job_id = caller.post("/v1/jobs", json=SPEC).json()["id"]
    with caller.stream("GET", f"/v1/jobs/{job_id}/events?after=1", headers=STREAM) as answer:
        assert next(line for line in answer.iter_lines() if line.startswith(":"))


def test_open_streams_hold_no_connection_to_the_database(
    caller: httpx2.Client, digits: str, live: str, api_key: str, app: Any
) -> None:
    job_id = caller.post("/v1/jobs", json=SPEC).json()["id"]
    url = f"{live}/v1/jobs/{job_id}/events"
    streams, iterators = [], []
    client = httpx2.Client(headers={"Authorization": f"Bearer {api_key}"} | STREAM, timeout=30)
    limits = 25  # more than the pool has connections
    for _ in range(limits):
        stream = client.stream("GET", url)
        streams.append(stream)
        iterators.append(sent_events(stream.__enter__().iter_lines()))
    assert [next(events)[0] for events in iterators] == ["1"] * limits
    assert caller.get(f"/v1/jobs/{job_id}/events").status_code == 200
    caller.post(f"/v1/jobs/{job_id}/cancel")
    assert [[sent[1] for sent in events] for events in iterators] == [["status", "done"]] * limits
    for stream in streams:
        stream.__exit__(None, None, None)
    client.close()
    assert app.state.parts.database.engine.pool.checkedout() == 0


def test_head_of_a_stream_does_not_wait_for_the_job(http: TestClient, post_job: PostJob) -> None:
    answer = http.head(f"/v1/jobs/{post_job()}/events", headers=STREAM)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
