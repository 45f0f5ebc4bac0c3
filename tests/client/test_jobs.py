"""Submitting and following jobs, against the real service."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from stillhouse.client import Client
from stillhouse.spec import JobSpec, JobStatus
from stillhouse.spec.errors import (
    IdempotencyMismatch,
    InvalidSpec,
    JobFinished,
    NotFound,
    NotReady,
    Unauthorized,
    Unreachable,
)
from stillhouse.spec.views import Job, JobError
from tests.cutting import cutting_proxy
from tests.house import SPEC, House


class Seen(httpx2.BaseTransport):
    """The real network, with a list of what went over it, and a fault where a test wants one."""

    def __init__(self, fault: Callable[[int, httpx2.Request], None] | None = None) -> None:
        self._network = httpx2.HTTPTransport()
        self._fault = fault
        self.sent: list[tuple[httpx2.Request, int]] = []

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        response = self._network.handle_request(request)
        self.sent.append((request, response.status_code))
        if self._fault is not None:
            response.read()
            self._fault(len(self.sent), request)
        return response

    def close(self) -> None:
        self._network.close()


def test_a_created_job_can_be_read_and_listed(house: House) -> None:
    with house.client() as client:
        job = client.jobs.create(SPEC | {"name": "listed", "labels": {"team": "red"}})
        assert job.status is JobStatus.QUEUED
        assert client.jobs.get(job.id) == job == client.jobs.get(job)
        assert [found.id for found in client.jobs.list(name="listed")] == [job.id]
        assert [found.id for found in client.jobs.list(labels={"team": "red"})] == [job.id]
        assert list(client.jobs.list(labels={"team": "red"}, status=[JobStatus.FAILED])) == []


def test_a_list_goes_over_all_pages_and_stops_at_its_limit(house: House) -> None:
    seen = Seen()
    with house.client(http_transport=seen) as client:
        made = [client.jobs.create(SPEC | {"name": "paged"}).id for _ in range(25)]
        seen.sent.clear()
        assert [job.id for job in client.jobs.list(name="paged")] == made[::-1]
        assert len(seen.sent) == 2
        assert [job.id for job in client.jobs.list(name="paged", limit=3)] == made[:-4:-1]


def test_a_spec_can_be_given_as_a_model(house: House) -> None:
    with house.client() as client:
        spec = JobSpec.model_validate(SPEC)
        assert client.jobs.create(spec).spec == spec


def test_validate_returns_the_resolved_spec_and_submits_nothing(house: House) -> None:
    with house.client() as client:
        validated = client.jobs.validate(SPEC | {"name": "only validated"})
        assert validated.resolved.task == "image-classification"
        assert validated.estimate.student_parameters == 610
        assert list(client.jobs.list(name="only validated")) == []


def test_a_wrong_spec_is_refused_before_anything_is_sent(house: House) -> None:
    seen = Seen()
    with house.client(http_transport=seen) as client, pytest.raises(InvalidSpec) as caught:
        client.jobs.create(SPEC | {"temperature": float("nan")})
    assert [error.pointer for error in caught.value.errors] == ["/temperature"]
    assert seen.sent == []


def test_a_spec_only_the_service_can_judge_is_refused_by_it(house: House) -> None:
    with house.client() as client, pytest.raises(InvalidSpec) as caught:
        client.jobs.create(SPEC | {"task": "tabular-classification"})
    assert [error.pointer for error in caught.value.errors] == ["/task"]


def test_a_submission_whose_answer_was_lost_is_sent_again_and_makes_one_job(house: House) -> None:
    def lose_first_answer(count: int, request: httpx2.Request) -> None:
        if count == 1:
            raise httpx2.ReadError("the link broke after the server had answered")

    seen = Seen(lose_first_answer)
    with house.client(http_transport=seen) as client:
        job = client.jobs.create(SPEC | {"name": "sent twice"})
    assert [status for _, status in seen.sent] == [202, 202]
    with house.client() as client:
        assert [found.id for found in client.jobs.list(name="sent twice")] == [job.id]


def test_two_submissions_are_two_jobs_unless_they_share_a_key(house: House) -> None:
    with house.client() as client:
        first = client.jobs.create(SPEC)
        assert client.jobs.create(SPEC).id != first.id
        named = client.jobs.create(SPEC, idempotency_key="mine")
        assert client.jobs.create(SPEC, idempotency_key="mine").id == named.id
        with pytest.raises(IdempotencyMismatch):
            client.jobs.create(SPEC | {"temperature": 2}, idempotency_key="mine")


def test_wait_reports_every_change_once_and_asks_with_the_etag(house: House) -> None:
    told: list[tuple[str, int | None]] = []

    def end_after_a_look_that_brought_nothing(count: int, request: httpx2.Request) -> None:
        if seen.sent[-1][1] == 304 and told[-1] == ("running", 50):
            house.succeed(lease[0], {"model.bin": b"x"})

    seen = Seen(end_after_a_look_that_brought_nothing)
    with house.client(http_transport=seen) as client:
        job = client.jobs.create(SPEC)

        def moved(now: Job) -> None:
            told.append((now.status, None if now.progress is None else now.progress.step))
            if now.status is JobStatus.QUEUED:
                lease.append(house.take_up(job.id))
            elif now.status is JobStatus.RUNNING and now.progress is None:
                house.advance(lease[0], step=50)

        lease: list[Any] = []
        ended = client.jobs.wait(job, on_change=moved)
    assert told == [("queued", None), ("running", None), ("running", 50), ("succeeded", None)]
    assert ended.status is JobStatus.SUCCEEDED
    looks = [(request.headers.get("if-none-match"), status) for request, status in seen.sent[1:]]
    assert looks[0][0] is None
    assert all(tag for tag, _ in looks[1:])


def test_wait_rests_as_long_as_the_service_asks_for(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    rests: list[float] = []
    with house.client() as client:
        job = client.jobs.create(SPEC)
        asked = float(client._transport.get(f"/v1/jobs/{job.id}").headers["retry-after"])
        monkeypatch.setattr(time, "sleep", lambda seconds: (rests.append(seconds), client.jobs.cancel(job)))
        assert client.jobs.wait(job).status is JobStatus.CANCELLED
    assert rests == [asked]


def test_wait_returns_a_failed_job_and_does_not_raise(house: House) -> None:
    with house.client() as client:
        job = client.jobs.create(SPEC)
        house.fail(house.take_up(job.id), JobError(code="loss_not_finite", detail="NaN.", hint="Lower the rate."))
        ended = client.jobs.wait(job.id)
    assert ended.status is JobStatus.FAILED
    assert ended.error is not None
    assert ended.error.code == "loss_not_finite"


def test_wait_gives_up_after_its_timeout(house: House) -> None:
    with house.client() as client:
        job = client.jobs.create(SPEC)
        with pytest.raises(TimeoutError, match=job.id):
            client.jobs.wait(job, timeout=0.2)
        with pytest.raises(TimeoutError):
            client.jobs.wait(job, timeout=0)


def test_wait_outlasts_a_service_that_is_away_for_a_while(house: House) -> None:
    def fail_twice(count: int, request: httpx2.Request) -> None:
        if 2 <= count <= 3:
            raise httpx2.ConnectError("refused")

    with house.client(http_transport=Seen(fail_twice), retries=0) as client:
        job = client.jobs.create(SPEC)
        house.succeed(house.take_up(job.id), {})
        assert client.jobs.wait(job).status is JobStatus.SUCCEEDED


def test_wait_raises_unreachable_when_the_outage_lasts(house: House) -> None:
    def always_fail(count: int, request: httpx2.Request) -> None:
        raise httpx2.ConnectError("refused")

    with house.client() as client:
        job = client.jobs.create(SPEC)
    with house.client(http_transport=Seen(always_fail), retries=0) as client, pytest.raises(Unreachable):
        client.jobs.wait(job, outage_seconds=0)


def test_events_log_and_metrics_tell_what_happened(house: House) -> None:
    with house.client() as client:
        job = client.jobs.create(SPEC)
        lease = house.take_up(job.id)
        for number in range(120):
            house.say(lease, f"line {number}")
        house.advance(lease, step=1, loss=2.0, loss_kd=1.0)
        house.advance(lease, step=2, loss=1.5, loss_kd=0.5)
        events = list(client.jobs.events(job))
        assert [event.seq for event in events] == list(range(1, 123))
        assert [event.seq for event in client.jobs.events(job, after=120)] == [121, 122]
        assert client.jobs.log(job).splitlines()[-1].endswith("line 119")
        series = {one.name: one.points for one in client.jobs.metrics(job).series}
        assert series == {"distilling/loss": [(1, 2.0), (2, 1.5)], "distilling/loss_kd": [(1, 1.0), (2, 0.5)]}
        assert [one.name for one in client.jobs.metrics(job, names=["distilling/loss"]).series] == ["distilling/loss"]
        assert client.jobs.metrics(job, first=2, names=["distilling/loss"]).series[0].points == [(2, 1.5)]
        assert client.jobs.metrics(job, last=1, names=["distilling/loss"]).series[0].points == [(1, 2.0)]


def test_a_stream_brings_events_as_they_happen_and_ends_with_the_job(house: House) -> None:
    with house.client() as client:
        job = client.jobs.create(SPEC)
        stream = client.jobs.stream(job)
        assert next(stream).data == {"status": "queued"}
        lease = house.take_up(job.id)
        assert next(stream).data == {"status": "running"}
        house.succeed(lease, {})
        assert [event.seq for event in stream] == [3]
        assert [event.seq for event in client.jobs.stream(job, after=2)] == [3]


def test_a_cut_stream_goes_on_after_the_last_event_it_brought(house: House) -> None:
    with house.client() as client:
        job = client.jobs.create(SPEC)
        lease = house.take_up(job.id)
        for number in range(40):
            house.say(lease, f"line {number}")
        house.succeed(lease, {})
    with (
        cutting_proxy(house.url, b"text/event-stream", [900, 2000, 400, 1500]) as cuts,
        house.client(url=cuts.url) as client,
    ):
        assert [event.seq for event in client.jobs.stream(job)] == list(range(1, 44))
    assert len(cuts.requests) == 5
    assert b"Last-Event-ID: 0\r\n" not in cuts.requests[-1]


def test_a_stream_that_never_gets_anywhere_ends_as_unreachable(house: House) -> None:
    with house.client() as client:
        job = client.jobs.create(SPEC)
    with (
        cutting_proxy(house.url, b"text/event-stream", [10] * 9) as cuts,
        house.client(url=cuts.url, retries=1) as client,
        pytest.raises(Unreachable),
    ):
        list(client.jobs.stream(job))
    # The first, and one more that brought nothing.
    assert len(cuts.requests) == 2


def test_cancel_stops_a_job_and_may_be_repeated(house: House) -> None:
    with house.client() as client:
        waiting = client.jobs.create(SPEC)
        assert client.jobs.cancel(waiting).status is JobStatus.CANCELLED
        assert client.jobs.cancel(waiting).status is JobStatus.CANCELLED
        running = client.jobs.create(SPEC)
        house.take_up(running.id)
        assert client.jobs.cancel(running.id).status is JobStatus.CANCELLING
        done = client.jobs.create(SPEC)
        house.succeed(house.take_up(done.id), {})
        with pytest.raises(JobFinished):
            client.jobs.cancel(done)


def test_files_of_an_unfinished_or_failed_job_are_refused_with_the_reason(house: House, tmp_path: Any) -> None:
    with house.client() as client:
        job = client.jobs.create(SPEC)
        with pytest.raises(NotReady, match="queued"):
            client.jobs.download(job, tmp_path / "out")
        house.fail(house.take_up(job.id), JobError(code="engine_fault", detail="Broke.", hint="Report it."))
        with pytest.raises(JobFinished, match="failed"):
            client.jobs.download(job, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_id_cannot_climb_out_of_its_path(house: House) -> None:
    with house.client() as client, pytest.raises(NotFound):
        client.jobs.get("../students?x=")


def test_a_wrong_key_is_unauthorized(house: House) -> None:
    with Client(house.url, "shk_wrong") as client, pytest.raises(Unauthorized):
        next(client.jobs.list())


def test_a_job_is_paused_resumed_retried_and_cloned(house: House) -> None:
    with house.client() as client:
        job = client.jobs.create(SPEC | {"name": "put aside"})
        assert client.jobs.pause(job).status is JobStatus.PAUSED
        assert client.jobs.resume(job.id).status is JobStatus.QUEUED
        with pytest.raises(NotReady):
            client.jobs.finish(job)
        assert client.jobs.checkpoints(job) == []
        client.jobs.cancel(job)
        assert client.jobs.retry(job).status is JobStatus.QUEUED
        made = client.jobs.clone(job, {"temperature": 2.0})
        assert (made.cloned_from, made.spec.temperature, made.spec.name) == (job.id, 2.0, "put aside")
        assert client.jobs.clone(job).spec == job.spec


def test_the_best_student_so_far_can_be_fetched(house: House, tmp_path: Path) -> None:
    with house.client() as client:
        job = client.jobs.create(SPEC)
        with pytest.raises(NotFound):
            client.jobs.download_best(job, tmp_path / "best.safetensors")
        house.succeed(house.take_up(job.id), {"model.safetensors": b"weights"})
        path = client.jobs.download_best(job, tmp_path / "best.safetensors")
        assert path.read_bytes() == b"weights"
        assert list(tmp_path.iterdir()) == [path]
