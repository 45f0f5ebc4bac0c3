"""From what a trainer says to rows: one write a second, under the lease, bounded while the database is away."""

import math
import time
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import structlog

from core.db import Database, is_outage
from models import events, lifecycle
from models.lifecycle import Lease, Note
from stillhouse.spec.events import LogLine, Metrics, PhaseStarted, Progress, TrainerEvent
from stillhouse.spec.states import Phase

log = structlog.get_logger()

_WRITE_SECONDS = 1.0
_TRAINING = frozenset({Phase.TRAINING_TEACHER, Phase.DISTILLING})
# What is kept while the database is away. Older points and lines are dropped first: the newest tell more.
_MAX_POINTS = 50_000
_MAX_NOTES = 2_000
_MAX_MESSAGE = 2_000


class Reporter:
    """Collects the events of one attempt and writes them in batches."""

    def __init__(self, database: Database, lease: Lease) -> None:
        self._database, self._lease = database, lease
        self._notes: deque[Note] = deque(maxlen=_MAX_NOTES)
        self._points: deque[dict[str, Any]] = deque(maxlen=_MAX_POINTS)
        self._phase: str | None = None
        self._progress: dict[str, Any] | None = None
        self._dirty = False
        self._urgent = False
        self._stepped = False
        self._next_write = 0.0
        self._placed = False
        self._cut_from: int | None = None
        self._written = 0
        self.points = 0
        """Metric points of the job so far, those of earlier attempts included."""

    def resume(self, points: int, unsent: Sequence[dict[str, Any]] = ()) -> None:
        """The trainer goes on from where `points` metric points were told; `unsent` of them were never written."""
        backlog = [point for point in unsent if point["position"] < points]
        self.points, self._placed = points, True
        self._written = points - len(backlog)
        self._cut_from = min([point["position"] for point in backlog], default=points)
        self._points.clear()  # of a checkpoint that turned out to be unfit
        self._points.extend(backlog)

    @property
    def unsent(self) -> list[dict[str, Any]]:
        """Points that are not written down yet."""
        return list(self._points)

    @property
    def written(self) -> int:
        """So many points of the job, from the first, are written down."""
        return self._written

    def take(self, event: TrainerEvent) -> None:
        """Remember what an event says."""
        if isinstance(event, PhaseStarted):
            self._phase, self._progress = event.phase, None
            self._note("phase", f"Phase: {event.phase.replace('_', ' ')}.", data={"phase": event.phase})
            self._urgent = True
        elif isinstance(event, Progress):
            self._phase = event.phase
            self._progress = event.model_dump(mode="json", exclude={"type"})
            self._dirty = True
            if event.phase in _TRAINING and event.step > 0 and not self._stepped:
                self._stepped = True
                self._note("log", "The first training step is done.", data={"step": event.step})
                self._urgent = True
        elif isinstance(event, Metrics):
            if not self._placed:
                self.resume(0)
            for point in event.points:
                if math.isfinite(point.value):
                    self._points.append(point.model_dump() | {"position": self.points})
                    self.points += 1
        elif isinstance(event, LogLine):
            self._note("log", event.message, level=event.level)

    def flush(self, *, force: bool = False) -> bool:
        """Write what is due. False when the lease no longer holds; an outage of the database keeps it for later."""
        due = force or self._urgent or time.monotonic() >= self._next_write
        if not due or not (self._dirty or self._notes or self._points or self._cut_from is not None):
            return True
        self._next_write = time.monotonic() + _WRITE_SECONDS
        try:
            held = self._write()
        except Exception as error:
            if not is_outage(error):
                raise
            log.warning("report postponed", job_id=self._lease.job_id, error=type(error).__name__)
            return True
        self._cut_from, self._written = None, self.points
        self._dirty = self._urgent = False
        self._notes.clear()
        self._points.clear()
        return held

    def _write(self) -> bool:
        with self._database.write() as session:
            if self._phase is not None and not lifecycle.report_progress(
                session, self._lease, phase=self._phase, progress=self._progress
            ):
                return False
            if not lifecycle.add_events(session, self._lease, list(self._notes)):
                return False
            # What a lost attempt told after the point where this one took over is told again.
            if self._cut_from is not None and not events.cut_metrics(session, self._lease, self._cut_from):
                return False
            return events.add_metrics(session, self._lease, list(self._points))

    def _note(self, type: str, message: str, *, level: str = "info", data: dict[str, Any] | None = None) -> None:
        # When it happened, not when it is written: the two may be a second or an outage apart.
        stamped = {"at": datetime.now(UTC).isoformat()} | (data or {})
        self._notes.append(Note(type=type, level=level, message=message[:_MAX_MESSAGE], data=stamped))
