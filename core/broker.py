"""The broker carries doorbells: a job id each, sent after the row is committed. Losing or doubling one does no harm."""

from typing import Any

from celery import Celery
from kombu.exceptions import OperationalError

from core.settings import Settings

TASK = "distill"
"""Name of the one task."""
_ANSWER_SECONDS = 15.0
"""Without a bound on the wait for an answer a silently cut link is never noticed."""
_RING_SECONDS = 1.0
"""The same for who rings: submissions and the reconciler's passes, with its look for expired leases, come after each
other, and a broker that stands still must not hold them up."""


class Doorbell:
    """Rings for jobs."""

    def __init__(self, settings: Settings) -> None:
        self.app = make_celery(settings, answer_seconds=_RING_SECONDS)
        self._queue = settings.queue

    def ring(self, job_id: str) -> bool:
        """Tell the workers that `job_id` waits. False when the broker is away: the reconciler will ring again."""
        try:
            self.app.send_task(TASK, args=[job_id], queue=self._queue, ignore_result=True)
        except (OperationalError, OSError):
            return False
        return True

    def waiting(self) -> int | None:
        """Messages no worker has taken yet; None when the broker is away."""
        try:
            with self.app.connection_for_write() as connection, connection.channel() as channel:
                declared = channel.queue_declare(queue=self._queue, durable=True, passive=False)
                return int(declared.message_count)
        except (OperationalError, OSError):
            return None
        except connection_errors(self.app):
            return None

    def close(self) -> None:
        """Close pooled connections."""
        self.app.close()


def connection_errors(app: Celery) -> tuple[type[BaseException], ...]:
    """What the transport raises when the broker is away."""
    with app.connection_for_write() as connection:
        return (*connection.connection_errors, *connection.channel_errors)


def make_celery(settings: Settings, *, answer_seconds: float = _ANSWER_SECONDS) -> Celery:
    """A Celery app that speaks JSON only and acknowledges at once: the row, not the message, is the truth.

    `answer_seconds`: how long Redis or Valkey may take to answer a command.
    """
    app = Celery("stillhouse", broker=settings.broker_url, set_as_current=False)
    app.conf.update(_configuration(settings, answer_seconds))
    return app


def _configuration(settings: Settings, answer_seconds: float) -> dict[str, Any]:
    return {
        "task_default_queue": settings.queue,
        "task_serializer": "json",
        "accept_content": ["json"],
        "task_ignore_result": True,
        "task_acks_late": False,
        "worker_prefetch_multiplier": 1,
        "worker_disable_prefetch": settings.broker_url.startswith(("redis", "valkey")),
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_transport_options": _transport_options(settings.broker_url, answer_seconds),
        # A submit must not wait long for a broker that is away: the reconciler rings again anyway.
        "task_publish_retry_policy": {
            "max_retries": 1,
            "interval_start": 0,
            "interval_step": 0.1,
            "interval_max": 0.1,
        },
        "worker_send_task_events": False,
        "worker_enable_remote_control": False,
        "worker_hijack_root_logger": False,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
    }


def _transport_options(url: str, answer_seconds: float) -> dict[str, Any]:
    if not url.startswith(("redis", "valkey")):
        return {"max_retries": 1}
    return {
        "socket_timeout": answer_seconds,
        "socket_connect_timeout": 1,
        "socket_keepalive": True,
        "health_check_interval": 10,
        "max_retries": 1,
        "visibility_timeout": 3600,
    }
