"""Keeping a lease: one thread renews it, another kills the trainer if it could not be renewed in time."""

import os
import socket
import threading
import time
from collections.abc import Callable

import structlog

from core.db import Database
from core.settings import Settings
from models import lifecycle, workers
from models.lifecycle import Lease
from models.scheduling import Machine

log = structlog.get_logger()

# A worker that cannot renew stops itself this far into the lease: before anyone else may start.
_FENCE_AT = 0.8
# And this far into it, it has its trainer write a checkpoint.
_ENDANGERED_AT = 0.6


class Heart:
    """The heartbeat of one worker process, and of the lease it holds while it works.

    Its threads are not those of the work, so nothing the work does can hold them up.
    """

    def __init__(self, database: Database, settings: Settings, worker_id: str, machine: Machine) -> None:
        self._database, self._settings = database, settings
        self._worker_id, self._machine = worker_id, machine
        self._lock = threading.Lock()
        self._lease: Lease | None = None
        self._fence: Callable[[], None] = _nothing
        self._renewed = time.monotonic()
        self._lost = threading.Event()
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._renew_forever, name="heartbeat", daemon=True),
            threading.Thread(target=self._fence_forever, name="fence", daemon=True),
        ]

    def start(self) -> None:
        """Begin to beat."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop beating."""
        self._stop.set()

    def hold(self, lease: Lease, *, claimed_at: float) -> None:
        """Keep `lease`, claimed at monotonic time `claimed_at` or a little later."""
        with self._lock:
            self._lost.clear()
            self._lease, self._fence, self._renewed = lease, _nothing, claimed_at

    def fence_with(self, fence: Callable[[], None]) -> None:
        """What to call when the lease is lost, from now on; called at once if it already is."""
        with self._lock:
            if not self._lost.is_set():
                self._fence = fence
                return
        fence()

    def release(self) -> None:
        """The work is over."""
        with self._lock:
            self._lease, self._fence = None, _nothing

    @property
    def lost(self) -> bool:
        """True when the lease held last was lost: nothing may be written any more."""
        return self._lost.is_set()

    @property
    def endangered(self) -> bool:
        """True when the lease could not be renewed for most of the time after which it is given up."""
        with self._lock:
            silent = time.monotonic() - self._renewed
            return self._lease is not None and silent > self._settings.lease_seconds * _ENDANGERED_AT

    def _renew_forever(self) -> None:
        while not self._stop.is_set():
            try:
                self._renew_once()
            except Exception as error:  # noqa: BLE001 - whatever failed, the next beat tries again
                log.warning("heartbeat failed", error=type(error).__name__)
            self._stop.wait(self._settings.heartbeat_seconds)

    def _renew_once(self) -> None:
        with self._lock:
            lease = self._lease
        asked_at = time.monotonic()  # the lease is counted from before the question, never from after it
        held = self._beat(lease)
        with self._lock:
            if lease is None or lease is not self._lease:
                return
            if held:
                self._renewed = asked_at
            else:
                self._lose()

    def _beat(self, lease: Lease | None) -> bool:
        with self._database.write() as session:
            if not workers.beat(session, self._worker_id, job_id=None if lease is None else lease.job_id):
                host, pid = socket.gethostname(), os.getpid()
                workers.register(session, self._worker_id, host=host, pid=pid, machine=self._machine)
            return lease is None or lifecycle.renew(session, lease, lease_seconds=self._settings.lease_seconds)

    def _fence_forever(self) -> None:
        allowed = self._settings.lease_seconds * _FENCE_AT
        while not self._stop.wait(min(0.25, allowed / 10)):
            with self._lock:
                if self._lease is not None and time.monotonic() > self._renewed + allowed:
                    self._lose()

    def _lose(self) -> None:
        log.warning("lease lost", job_id=None if self._lease is None else self._lease.job_id)
        self._lost.set()
        fence, self._lease, self._fence = self._fence, None, _nothing
        fence()


def _nothing() -> None:
    return None
