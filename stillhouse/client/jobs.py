"""Jobs: submit, follow, stop, download."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import httpx2
from pydantic import ValidationError

from stillhouse.client.download import OnProgress, download, download_bundle, download_whole
from stillhouse.client.pages import each
from stillhouse.client.stream import stream_events
from stillhouse.client.transport import Transport, parse, pause, retry_after
from stillhouse.spec.errors import InvalidSpec, JobFinished, NotReady, StillhouseError, Unavailable, Unreachable
from stillhouse.spec.job import JobSpec
from stillhouse.spec.problems import field_errors
from stillhouse.spec.states import JobStatus
from stillhouse.spec.views import Artifact, Checkpoint, Event, Job, MetricSeries, Page, ValidatedJob

JobLike = Job | str
"""A job, or its id."""


class Jobs:
    """`client.jobs`. Every method that takes a job takes its id as well."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(self, spec: JobSpec | Mapping[str, Any], *, idempotency_key: str | None = None) -> Job:
        """Submit a job; it is queued when this returns.

        `idempotency_key`: the same key and spec give the same job, whoever sends them again; without one, a key is
        made for this call, so that its own retries make one job. Raises InvalidSpec, IdempotencyMismatch, NotFound.
        """
        headers = {"Idempotency-Key": idempotency_key or uuid4().hex}
        return parse(Job, self._post_spec(spec, headers=headers))

    def validate(self, spec: JobSpec | Mapping[str, Any]) -> ValidatedJob:
        """Check a spec as `create` would, and return what would run. Nothing is submitted. Raises InvalidSpec."""
        return parse(ValidatedJob, self._post_spec(spec, params={"validate_only": "true"}))

    def get(self, job: JobLike) -> Job:
        """The job as it is now. Raises NotFound."""
        return parse(Job, self._transport.get(_path(job)))

    def list(
        self,
        *,
        status: Iterable[JobStatus | str] = (),
        name: str | None = None,
        labels: Mapping[str, str] | None = None,
        deleted: bool = False,
        limit: int | None = None,
    ) -> Iterator[Job]:
        """Jobs, newest first; pages are fetched as the iterator moves. `limit`: at most so many. `deleted`: those in
        the trash, instead of all others."""
        params = {
            "status": ",".join(str(wanted) for wanted in status) or None,
            "name": name,
            "label": [f"{key}:{value}" for key, value in (labels or {}).items()],
            "deleted": "true" if deleted else None,
        }
        return each(self._transport, "/v1/jobs", Job, params=params, limit=limit)

    def cancel(self, job: JobLike) -> Job:
        """Ask for the job to be stopped; asking twice does no harm. Raises JobFinished, NotFound."""
        return self._ask(job, "cancel")

    def pause(self, job: JobLike) -> Job:
        """Put the job aside: it writes a checkpoint and gives its device back. Raises JobFinished, Conflict."""
        return self._ask(job, "pause")

    def resume(self, job: JobLike) -> Job:
        """Go on with a paused job from its checkpoint. Raises JobFinished, Conflict."""
        return self._ask(job, "resume")

    def finish(self, job: JobLike) -> Job:
        """Stop training now, keep the best student so far, go on to evaluation and export.

        Raises NotReady while there is no student yet, JobFinished, Conflict.
        """
        return self._ask(job, "finish")

    def retry(self, job: JobLike) -> Job:
        """Try a failed or cancelled job again, a failed one from its last checkpoint. Raises JobFinished, Conflict."""
        return self._ask(job, "retry")

    def clone(
        self, job: JobLike, changes: Mapping[str, Any] | None = None, *, idempotency_key: str | None = None
    ) -> Job:
        """Submit a new job with this job's spec as it was posted, changed by a JSON merge patch (RFC 7396).

        `changes`: objects are merged, None removes a field, everything else replaces it. `idempotency_key` as in
        `create`. Raises InvalidSpec, IdempotencyMismatch, NotFound.
        """
        headers = {"Idempotency-Key": idempotency_key or uuid4().hex}
        body = dict(changes) if changes is not None else None
        path = f"{_path(job)}/clone"
        return parse(Job, self._transport.request("POST", path, headers=headers, json=body, repeatable=True))

    def checkpoints(self, job: JobLike) -> Sequence[Checkpoint]:
        """What the job could go on from, newest first; soon none of a job that succeeded or was cancelled."""
        return parse(Page[Checkpoint], self._transport.get(f"{_path(job)}/checkpoints")).data

    def download_best(
        self, job: JobLike, path: str | Path, *, overwrite: bool = False, on_progress: OnProgress | None = None
    ) -> Path:
        """Fetch the best student so far as a safetensors file, also while the job runs.

        Raises FileExistsError, NotFound before there is one, BadAnswer, Unreachable.
        """
        return download_whole(
            self._transport, f"{_path(job)}/checkpoints/best", Path(path), overwrite=overwrite, on_progress=on_progress
        )

    def delete(self, job: JobLike) -> Job:
        """Put a job that is over into the trash; until its `purge_at` it can be restored. Raises NotFound;
        Conflict while it is not over: cancel it first."""
        return parse(Job, self._transport.request("DELETE", _path(job), repeatable=True))

    def restore(self, job: JobLike) -> Job:
        """Take it out of the trash. Raises NotFound, also when it has been removed for good."""
        response = self._transport.request("POST", f"{_path(job)}/restore", repeatable=True)
        return parse(Job, response)

    def wait(
        self,
        job: JobLike,
        *,
        timeout: float | None = None,
        on_change: Callable[[Job], None] | None = None,
        outage_seconds: float = 60.0,
    ) -> Job:
        """Return the job once it is over, whatever its end: look at `status`, `verdict` and `error`.

        `on_change` gets the job at first and after every change. A service that is away is waited for, up to
        `outage_seconds`. Raises TimeoutError after `timeout` seconds (None: never), Unreachable, Unavailable.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        etag, known, rest = None, None, 0.0
        while True:
            response = self._look(job, etag, outage_seconds)
            if response.status_code != 304:
                etag, known = response.headers.get("etag"), parse(Job, response)
                if on_change is not None:
                    on_change(known)
                if known.status.final:
                    return known
            rest = _until_next_look(response)
            if deadline is not None:
                rest = min(rest, deadline - time.monotonic())
            if rest < 0:
                raise TimeoutError(f"{_id(job)} is not over after {timeout:g} seconds")
            time.sleep(rest)

    def events(self, job: JobLike, *, after: int = 0) -> Iterator[Event]:
        """What has happened to the job so far, in order, from the event after number `after`."""
        return each(self._transport, f"{_path(job)}/events", Event, params={"after": after})

    def stream(self, job: JobLike, *, after: int = 0) -> Iterator[Event]:
        """Events as they happen, until the job is over. A cut stream is taken up where it broke off."""
        return stream_events(self._transport, f"{_path(job)}/events", after=after)

    def log(self, job: JobLike) -> str:
        """The job's log as text, a line each."""
        return self._transport.get(f"{_path(job)}/log", headers={"Accept": "text/plain"}).text

    def metrics(
        self,
        job: JobLike,
        *,
        names: Iterable[str] = (),
        first: int | None = None,
        last: int | None = None,
        max_points: int | None = None,
    ) -> MetricSeries:
        """Series of a job, all or `names`; steps `first` to `last`, down-sampled to `max_points` each."""
        params = {"names": [*names], "first_step": first, "last_step": last, "max_points": max_points}
        return parse(MetricSeries, self._transport.get(f"{_path(job)}/metrics", params))

    def artifacts(self, job: JobLike) -> Sequence[Artifact]:
        """Files of a job; none before it has succeeded. Raises NotFound."""
        return parse(Page[Artifact], self._transport.get(f"{_path(job)}/artifacts")).data

    def download(
        self,
        job: JobLike,
        folder: str | Path,
        *,
        names: Iterable[str] | None = None,
        overwrite: bool = False,
        on_progress: OnProgress | None = None,
    ) -> Sequence[Path]:
        """Fetch the files of a succeeded job (or those of `names`) into `folder`, and return their paths.

        A file that is already there and whole is not fetched again, a partial one (`name.part`) is continued, also
        after this process was ended; each is checked against its sha256 before it gets its name. `overwrite`: other
        files of the same name give way. Raises FileExistsError, NotReady, JobFinished, NotFound, BadAnswer.
        """
        found = self.get(job)
        if found.status is not JobStatus.SUCCEEDED:
            raise _without_files(found)
        return download(
            self._transport,
            f"{_path(job)}/artifacts",
            self.artifacts(found),
            Path(folder),
            names=names,
            overwrite=overwrite,
            on_progress=on_progress,
        )

    def bundle(
        self, job: JobLike, path: str | Path, *, overwrite: bool = False, on_progress: OnProgress | None = None
    ) -> Path:
        """Fetch all files of a succeeded job as one ZIP. Raises FileExistsError, NotReady, BadAnswer, Unreachable."""
        return download_bundle(
            self._transport, f"{_path(job)}/bundle.zip", Path(path), overwrite=overwrite, on_progress=on_progress
        )

    def _ask(self, job: JobLike, verb: str) -> Job:
        return parse(Job, self._transport.request("POST", f"{_path(job)}/{verb}", repeatable=True))

    def _post_spec(
        self,
        spec: JobSpec | Mapping[str, Any],
        *,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
    ) -> httpx2.Response:
        body = checked_spec(spec).model_dump(mode="json", exclude_unset=True)
        return self._transport.request("POST", "/v1/jobs", params=params, headers=headers, json=body, repeatable=True)

    def _look(self, job: JobLike, etag: str | None, outage_seconds: float) -> httpx2.Response:
        headers = {} if etag is None else {"If-None-Match": etag}
        away_since, attempt = None, 0
        while True:
            try:
                return self._transport.get(_path(job), headers=headers)
            except (Unreachable, Unavailable):
                now = time.monotonic()
                away_since = away_since or now
                if now - away_since >= outage_seconds:
                    raise
                time.sleep(pause(attempt))
                attempt += 1


def checked_spec(spec: JobSpec | Mapping[str, Any]) -> JobSpec:
    """The spec as a model. Raises InvalidSpec with an entry per wrong field, as the service would."""
    if isinstance(spec, JobSpec):
        return spec
    given = dict(spec)
    try:
        return JobSpec.model_validate(given)
    except ValidationError as error:
        wrong = field_errors(error, given, JobSpec)
        count = "1 field" if len(wrong) == 1 else f"{len(wrong)} fields"
        raise InvalidSpec(f"The job spec is wrong in {count}.", errors=wrong) from error


def _without_files(job: Job) -> StillhouseError:
    if job.status.final:
        return JobFinished(f"Job {job.id} is {job.status} and left no files.", hint="Its error and log say why.")
    return NotReady(f"Job {job.id} is {job.status}; its files come when it has succeeded.", hint="Wait for the job.")


def _until_next_look(response: httpx2.Response) -> float:
    asked = retry_after(response)
    return 1.0 if asked is None else max(asked, 0.1)


def _id(job: JobLike) -> str:
    return job if isinstance(job, str) else job.id


def _path(job: JobLike) -> str:
    return f"/v1/jobs/{quote(_id(job), safe='')}"
