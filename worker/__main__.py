"""`python -m worker`: a Celery worker with the options this service needs."""

import argparse

from models import schema
from worker.app import app, settings


def main() -> None:
    """Run until told to stop."""
    parser = argparse.ArgumentParser(prog="python -m worker", description="Work on distillation jobs.")
    parser.add_argument("--concurrency", type=int, default=1, help="jobs at once; one per GPU (default 1)")
    parser.add_argument("--name", default="stillhouse@%h", help="Celery node name (default stillhouse@HOST)")
    given = parser.parse_args()
    schema.check_or_exit(settings.resolved_database_url)
    app.worker_main(
        [
            # No banner: to name the platform in it Celery runs a command of the system with our whole environment.
            "--quiet",
            "worker",
            "--pool=prefork",
            f"--concurrency={given.concurrency}",
            f"--hostname={given.name}",
            f"--loglevel={settings.log_level}",
            # The database says who is alive; workers need not gossip about it.
            "--without-gossip",
            "--without-mingle",
            "--without-heartbeat",
        ]
    )


if __name__ == "__main__":
    main()
