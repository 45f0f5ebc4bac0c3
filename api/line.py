"""Who waits for a worker, for the answers about jobs: looked up once for all who ask, and again after a second."""

import threading
import time

from core.db import Database
from core.settings import Settings
from models import queue
from models.job import JobRow
from models.tenancy import every_project
from stillhouse.spec.states import JobStatus
from stillhouse.spec.views import QueuePlace

FRESH_SECONDS = 1.0


class WaitingLine:
    """The queue of all projects; of the others' jobs it tells how many come first, and nothing else."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database, self._settings = database, settings
        self._lock = threading.Lock()
        self._places: dict[str, QueuePlace] = {}
        self._seen = float("-inf")

    def place_of(self, row: JobRow) -> QueuePlace | None:
        """The job's place while it waits. None: it does not, or a worker has just taken it up."""
        if row.status != JobStatus.QUEUED:
            return None
        with self._lock:
            # One that is not there may be newer than the last look.
            if row.id not in self._places or time.monotonic() - self._seen > FRESH_SECONDS:
                self._look()
            return self._places.get(row.id)

    def _look(self) -> None:
        limit, fresh = self._settings.limits.max_running_jobs, self._settings.lease_seconds
        seen = time.monotonic()
        with every_project(self._database) as session:
            self._places = queue.look(session, running_limit=limit, fresh_seconds=fresh).places
        self._seen = seen
