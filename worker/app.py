"""The Celery application: one task, and what each pool process holds.

The pool process is the supervisor. It imports no torch; its trainer runs in a process of its own.
"""

import mmap
import os
import signal
from types import FrameType
from typing import Any

import structlog
from celery.signals import worker_process_init, worker_process_shutdown, worker_shutting_down

from core import log as logs
from core.broker import TASK, make_celery
from core.db import Database
from core.settings import Settings
from core.storage import make_storage
from models import workers
from stillhouse.spec.ids import new_id
from worker.folder import remove_abandoned
from worker.lease import Heart
from worker.lifeline import die_with_parent
from worker.machine import this_machine
from worker.supervisor import Supervisor

settings = Settings()
app = make_celery(settings)
log = structlog.get_logger()

# One byte shared with the pool processes, which are forked from this one: set when the worker is told to stop.
_draining = mmap.mmap(-1, 1)


class Station:
    """What one pool process holds from its start to its end."""

    def __init__(self) -> None:
        self.worker_id, machine = new_id("wrk"), this_machine(settings)
        self.database = Database(settings.resolved_database_url)
        self.heart = Heart(self.database, settings, self.worker_id, machine)
        self.supervisor = Supervisor(
            self.database,
            make_storage(settings),
            settings,
            self.heart,
            worker_id=self.worker_id,
            machine=machine,
            draining=lambda: self._leaving or _draining[0] == 1,
        )
        self._leaving = False

    def open(self) -> None:
        """Begin to beat; the first beat registers the worker."""
        self.heart.start()

    def work(self) -> None:
        """Work until nothing is left for this process. Raises SystemExit when it was told to leave meanwhile.

        SIGTERM may come to this very process: a service manager signals every process of a group. Its job is then
        handed back as when the whole worker stops. While it has none, Celery's own handler ends it at once.
        """
        idle = signal.signal(signal.SIGTERM, self._leave)
        try:
            self.supervisor.work()
        finally:
            signal.signal(signal.SIGTERM, idle)
        if self._leaving:
            raise SystemExit(0)  # the pool starts another in its place, unless it ends too

    def _leave(self, _number: int, _frame: FrameType | None) -> None:
        self._leaving = True

    def close(self) -> None:
        """Leave in order."""
        self.heart.stop()
        self.supervisor.close()
        with self.database.write() as session:
            workers.leave(session, self.worker_id)
        self.database.close()


# A pool process has one station, and Celery gives it no other place.
_station: Station | None = None


@worker_process_init.connect
def _open(**_: Any) -> None:
    global _station
    die_with_parent(os.getppid())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides what it means
    logs.configure(settings, process="worker")
    remove_abandoned(settings.work_dir)
    _station = Station()
    _station.open()


@worker_process_shutdown.connect
def _close(**_: Any) -> None:
    if _station is not None:
        _station.close()


@worker_shutting_down.connect
def _drain(**_: Any) -> None:
    _draining[0] = 1


@app.task(name=TASK)
def distill(job_id: object) -> None:
    """The doorbell rang, for this job when it was new: there is work, and turns say which."""
    if _station is not None:
        _station.work()
