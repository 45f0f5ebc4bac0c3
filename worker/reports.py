"""From what a trainer says to rows: one write a second, under the lease, bounded while the database is away."""

import math
import time
from collections import deque
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
            self._points.extend(p.model_dump() for p in event.points if math.isfinite(p.value))
        elif isinstance(event, LogLine):
            self._note("log", event.message, level=event.level)

    def flush(self, *, force: bool = False) -> bool:
        """Write what is due. False when the lease no longer holds; an outage of the database keeps it for later."""
        due = force or self._urgent or time.monotonic() >= self._next_write
        if not due or not (self._dirty or self._notes or self._points):
            return True
        self._next_write = time.monotonic() + _WRITE_SECONDS
        try:
            held = self._write()
        except Exception as error:
            if not is_outage(error):
                raise
            log.warning("report postponed", job_id=self._lease.job_id, error=type(error).__name__)
            return True
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
            held = lifecycle.add_events(session, self._lease, list(self._notes))
            return held and events.add_metrics(session, self._lease, list(self._points))

    def _note(self, type: str, message: str, *, level: str = "info", data: dict[str, Any] | None = None) -> None:
        # When it happened, not when it is written: the two may be a second or an outage apart.
        stamped = {"at": datetime.now(UTC).isoformat()} | (data or {})
        self._notes.append(Note(type=type, level=level, message=message[:_MAX_MESSAGE], data=stamped))
