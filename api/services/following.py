"""How a caller follows a job: its events, its log, its series of numbers."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool

from api.parts import Parts
from api.services import jobs
from api.services.downsampling import lttb
from api.views import event_view
from core.db import is_outage
from models import events
from models.event import EventRow
from stillhouse.spec import forms
from stillhouse.spec.base import Contract, LaxTuple
from stillhouse.spec.errors import Invalid
from stillhouse.spec.states import JobStatus
from stillhouse.spec.views import Event, EventType, MetricSeries, Page, Series

_LAST = 2**31 - 1
POLL_SECONDS = 0.5
PING_SECONDS = 15.0
"""A stream that has nothing to tell says so this often: proxies cut what is silent."""
_BATCH = 500

Number = Annotated[int, Field(ge=0, le=_LAST)]
SeriesName = Annotated[str, Field(min_length=1, max_length=80, pattern=forms.SERIES)]


class EventsQuery(Contract, strict=False):
    """Which events."""

    after: Number = 0
    """Only events after this number: the `seq` of the last one seen."""
    limit: Annotated[int, Field(ge=1, le=1000)] = 100
    type: EventType | None = None


class MetricsQuery(Contract, strict=False):
    """Which part of which series."""

    names: Annotated[tuple[SeriesName, ...], LaxTuple, Field(max_length=100)] = ()
    """Names of series, repeated; none: all."""
    first_step: Number | None = None
    last_step: Number | None = None
    max_points: Annotated[int, Field(ge=2, le=100_000)] = 1000
    """A series of more points is thinned to so many; its first and last stay."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """What one look at a job's events brought."""

    rows: list[EventRow]
    over: bool
    """The job is over and there are no more."""


def page(parts: Parts, project_id: str, job_id: str, query: EventsQuery) -> Page[Event]:
    """Events in order. The cursor is the number of the last one, also on the last page: pass it to ask what is new."""
    with parts.of(project_id).read() as session:
        jobs.find(session, project_id, job_id)
        rows = events.page(session, job_id, after=query.after, limit=query.limit, type=query.type)
    shown = rows[: query.limit]
    last = shown[-1].seq if shown else query.after
    return Page(data=[event_view(row) for row in shown], has_more=len(rows) > query.limit, next_cursor=str(last))


def start_of_stream(header: str | None, query: EventsQuery) -> int:
    """After which event a stream begins: where a broken one stopped, else as the query says."""
    if header is None or header == "":
        return query.after
    if not (header.isascii() and header.isdecimal()) or len(header) > 10 or int(header) > _LAST:
        raise Invalid.at("header:Last-Event-ID", "bad_id", "This is not the number of an event.")
    return int(header)


async def stream(parts: Parts, project_id: str, job_id: str, *, after: int, type: str | None) -> AsyncIterator[str]:
    """Events as they happen, as server-sent events; `done` once the job is over. Holds nothing between two looks."""
    yield "retry: 2000\n\n"
    said = time.monotonic()
    while not parts.stopping.is_set():
        try:
            look = await run_in_threadpool(_look, parts, project_id, job_id, after, type)
        except SQLAlchemyError as error:
            if not is_outage(error):
                raise
            return  # without `done`, so the client comes again and goes on where it was
        for row in look.rows:
            after = row.seq
            yield f"id: {row.seq}\nevent: {row.type}\ndata: {event_view(row).model_dump_json()}\n\n"
        if look.over:
            yield f"id: {after}\nevent: done\ndata: {{}}\n\n"
            return
        if look.rows:
            said = time.monotonic()
        elif time.monotonic() - said >= PING_SECONDS:
            said = time.monotonic()
            yield ": nothing new\n\n"
        if len(look.rows) < _BATCH:
            await asyncio.sleep(POLL_SECONDS)


def check(parts: Parts, project_id: str, job_id: str) -> None:
    """Raises NotFound when the caller has no such job."""
    with parts.of(project_id).read() as session:
        jobs.find(session, project_id, job_id)


def log_text(parts: Parts, project_id: str, job_id: str) -> Iterator[str]:
    """The events as lines of text, oldest first, some hundred at a time."""
    after = 0
    while True:
        with parts.of(project_id).read() as session:
            rows = events.page(session, job_id, after=after, limit=_BATCH)
        yield "".join(_line(row) for row in rows[:_BATCH])
        if len(rows) <= _BATCH:
            return
        after = rows[_BATCH - 1].seq


def metrics(parts: Parts, project_id: str, job_id: str, query: MetricsQuery) -> MetricSeries:
    """Series of a job, through all its attempts."""
    with parts.of(project_id).read() as session:
        jobs.find(session, project_id, job_id)
        found = events.series(session, job_id, names=query.names, first=query.first_step, last=query.last_step)
    return MetricSeries(job_id=job_id, series=[_series(name, points, query) for name, points in found.items()])


def _line(row: EventRow) -> str:
    # A message is one line, whatever it holds.
    return f"{row.created_at:%Y-%m-%dT%H:%M:%SZ} {row.level:<7} {' '.join(row.message.split())}\n"


def _series(name: str, points: list[tuple[int, float]], query: MetricsQuery) -> Series:
    finite = [point for point in points if math.isfinite(point[1])]  # JSON has no other numbers
    return Series(name=name, points=lttb(finite, query.max_points), total_points=len(points))


def _look(parts: Parts, project_id: str, job_id: str, after: int, type: str | None) -> Look:
    with parts.of(project_id).read() as session:
        # The status first: its last event is then among those read after it.
        final = JobStatus(jobs.find(session, project_id, job_id).status).final
        rows = events.page(session, job_id, after=after, limit=_BATCH, type=type)
    return Look(rows=rows[:_BATCH], over=final and len(rows) <= _BATCH)
