"""The reconciler: makes the queue agree with the rows, and tells webhooks. Any number may run; none is needed for what
is already running. Beside it, in a thread, `worker.retention` sweeps.

`python -m worker.reconciler` runs one until it is told to stop.
"""

import os
import signal
import threading
from dataclasses import dataclass
from types import FrameType

import structlog

from core import log as logs
from core.broker import Doorbell
from core.db import Database
from core.outbound import Guard
from core.pinned import Poster
from core.sealing import Sealer
from core.settings import Settings
from core.storage import make_storage
from models import audits, jobs, lifecycle, queue, schema
from worker import retention, webhooks

log = structlog.get_logger()

# A delivery under way may end within this; a longer one is made again by whoever comes next.
_LAST_DELIVERIES_SECONDS = 5


@dataclass(frozen=True)
class Pass:
    """What one pass did."""

    taken_back: int
    rung: int


def reconcile(database: Database, doorbell: Doorbell, settings: Settings) -> Pass:
    """Take back expired leases, then ring for waiting jobs whose doorbells were lost or came too early."""
    return Pass(taken_back=_take_back(database, settings), rung=_ring(database, doorbell, settings))


def _take_back(database: Database, settings: Settings) -> int:
    with database.read() as session:
        gone = lifecycle.expired(session)
    limit, pause = settings.attempt_limit, settings.retry_seconds
    done = 0
    for job_id, attempt in gone:
        with database.write() as session:
            done += lifecycle.take_back(session, job_id, attempt, limit=limit, retry_seconds=pause)
    return done


def _ring(database: Database, doorbell: Doorbell, settings: Settings) -> int:
    with database.read() as session:
        limit = settings.limits.max_running_jobs
        line = queue.look(session, running_limit=limit, fresh_seconds=settings.lease_seconds)
    # One ring per worker is enough: who hears it works until nothing is left for it.
    waiting = line.in_reach[: max(1, line.workers)]
    # As long as messages lie in the queue, the workers are busy and will come to the others: ringing again would
    # only fill the broker.
    if not waiting or doorbell.waiting() != 0:
        return 0
    heard = [job_id for job_id in waiting if doorbell.ring(job_id)]
    with database.write() as session:
        lifecycle.rung(session, heard)
    return len(heard)


def run(settings: Settings, stop: threading.Event) -> None:
    """Reconcile and deliver webhooks until `stop` is set. A part that is away is waited for."""
    database = Database(settings.resolved_database_url)
    courier = webhooks.Courier(database, Poster(Guard.of(settings)), Sealer.of(settings))
    couriers = webhooks.start(courier, stop, every_seconds=settings.reconcile_seconds)
    # In a thread of its own: a slow storage must not hold up leases.
    sweeper = (database, make_storage(settings), settings, stop)
    threading.Thread(target=retention.run, args=sweeper, name="retention", daemon=True).start()
    doorbell = Doorbell(settings)
    passes = 0
    while not stop.wait(settings.reconcile_seconds):
        try:
            done = reconcile(database, doorbell, settings)
            if passes % 1000 == 0:
                with database.write() as session:
                    jobs.forget_old_keys(session)
                    audits.forget_old(session, days=settings.audit_days)
            passes += 1
            _show_life(settings)
        except Exception as error:  # noqa: BLE001 - whatever is away now is looked at again in the next pass
            log.warning("pass failed", error=type(error).__name__)
            continue
        if done.taken_back or done.rung:
            log.info("reconciled", taken_back=done.taken_back, rung=done.rung)
    webhooks.wait(couriers, seconds=_LAST_DELIVERIES_SECONDS)
    doorbell.close()
    database.close()


def _show_life(settings: Settings) -> None:
    # Whoever makes room on the disk may remove the folder at any moment: nothing in it is needed.
    settings.reconciler_beat.parent.mkdir(parents=True, exist_ok=True)
    settings.reconciler_beat.touch()


def main() -> None:
    """Run until SIGTERM or SIGINT."""
    settings = Settings()
    logs.configure(settings, process="reconciler")
    schema.check_or_exit(settings.resolved_database_url)
    stop = threading.Event()

    def _stop(_signal: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, _stop)
    log.info("reconciling", every_seconds=settings.reconcile_seconds, pid=os.getpid())
    run(settings, stop)


if __name__ == "__main__":
    main()
