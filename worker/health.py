"""`python -m worker.health`: exit status 0 when the worker (or, with --reconciler, the reconciler) of this host lives.

What counts is the heartbeat it leaves, not whether a process exists: a stuck one exists too.
"""

import argparse
import socket
import sys
import time

from core.db import Database
from core.settings import Settings
from models import schema, workers


def main() -> None:
    """Look, and exit."""
    parser = argparse.ArgumentParser(prog="python -m worker.health", description="Is the worker of this host alive?")
    parser.add_argument("--reconciler", action="store_true", help="ask for the reconciler instead")
    settings = Settings()
    schema.check_or_exit(settings.resolved_database_url)
    lives = _reconciler(settings) if parser.parse_args().reconciler else _worker(settings)
    sys.exit(0 if lives else 1)


def _worker(settings: Settings) -> bool:
    database = Database(settings.resolved_database_url)
    with database.read() as session:
        return workers.fresh(session, within_seconds=settings.lease_seconds, host=socket.gethostname()) > 0


def _reconciler(settings: Settings) -> bool:
    try:
        age = time.time() - settings.reconciler_beat.stat().st_mtime
    except FileNotFoundError:
        return False
    return age < max(30, 10 * settings.reconcile_seconds)


if __name__ == "__main__":
    main()
