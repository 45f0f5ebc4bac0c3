"""Deliver webhooks: claim a try, POST it, write down what came of it. At least once; the receiver knows doubles by id.

Signed as Standard Webhooks 1.0 says (https://www.standardwebhooks.com): HMAC-SHA256 over `id.timestamp.body`. The
retry schedule is the one it recommends: ten tries in about three days.
"""

import base64
import hashlib
import hmac
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import structlog

import stillhouse
from core.db import Database
from core.outbound import OutboundError
from core.pinned import Poster
from core.sealing import Sealer, Unsealable
from models import lifecycle, webhook_secrets, webhooks
from models.job import JobRow
from models.lifecycle import Note
from models.webhooks import Try
from stillhouse.spec.web_url import parse_url
from stillhouse.spec.webhook import WEBHOOK_ERRORS, WebhookData, WebhookMessage

log = structlog.get_logger()

SCHEDULE_SECONDS = (5, 5 * 60, 30 * 60, *(3600 * hours for hours in (2, 5, 10, 14, 20, 24)))
"""Pause after the first failed try, the second, …; after the last of them one more try is made."""
TRIES = len(SCHEDULE_SECONDS) + 1
_JITTER = 0.1
# Longer than a try takes, look-up included: only a try whose process died is made again after it.
_HOLD_SECONDS = 120
# A receiver that lets us wait holds up one of these threads, never the reconciliation of leases.
_THREADS = 8


@dataclass(frozen=True, kw_only=True)
class Letter:
    """One claimed try, and all it needs: no session is open while it travels."""

    made: Try
    job_id: str
    url: str
    body: bytes
    secrets: tuple[bytes, ...]
    """Empty when they cannot be read."""

    @property
    def endpoint(self) -> str:
        """What may be shown of the URL."""
        return parse_url(self.url).origin


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a try."""

    status: int | None = None
    error: str | None = None
    """One of WEBHOOK_ERRORS; None: delivered."""


class Courier:
    """Makes the tries that are due. Safe to share between threads, and to run in several processes."""

    def __init__(self, database: Database, poster: Poster, sealer: Sealer) -> None:
        self._database, self._poster, self._sealer = database, poster, sealer

    def deliver_next(self) -> bool:
        """Make one try. False when none is due."""
        made = self._claim()
        if made is None:
            return False
        letter = self._load(made)
        self._record(letter, self._send(letter))
        return True

    def _claim(self) -> Try | None:
        # Committed before anything else: a message that breaks us then costs one try, not the turn of all others.
        with self._database.read() as session:
            candidates = webhooks.due(session, limit=2 * _THREADS)
        for wanted in candidates:
            with self._database.write() as session:
                if webhooks.claim(session, wanted, hold_seconds=_HOLD_SECONDS):
                    return wanted
        return None

    def _load(self, made: Try) -> Letter:
        with self._database.write() as session:
            delivery, job = webhooks.with_job(session, made.delivery_id)
            try:
                secrets = webhook_secrets.secrets_of(session, self._sealer, delivery.project_id).all
            except Unsealable:
                secrets = ()
            body = message_of(job).model_dump_json().encode()
            return Letter(made=made, job_id=job.id, url=job.resolved["webhook"]["url"], body=body, secrets=secrets)

    def _send(self, letter: Letter) -> Outcome:
        if not letter.secrets:
            return Outcome(error="secret_unreadable")
        try:
            status = self._poster.post(letter.url, letter.body, headers_of(letter, at=int(time.time())))
        except OutboundError as error:
            # The reason is for the operator alone: a caller could map the network with it.
            log.warning("webhook", job_id=letter.job_id, endpoint=letter.endpoint, reason=error.reason)
            return Outcome(error=error.code)
        return Outcome(status=status, error=_error_of(status))

    def _record(self, letter: Letter, outcome: Outcome) -> None:
        with self._database.write() as session:
            webhooks.hold_job(session, letter.job_id)
            made, status, error = letter.made, outcome.status, outcome.error
            if error is not None and error != "gone" and made.attempt < TRIES:
                pause = pause_after(made.attempt)
                at = webhooks.retry(session, made, pause_seconds=pause, status=status, error=error)
                note = None if at is None else _retry_note(letter, outcome, at)
            else:
                ending = "delivered" if error is None else "gave_up"
                done = webhooks.finish(session, made, ending, status=status, error=error)
                note = _last_note(letter, outcome, ending) if done else None
            if note is not None:
                lifecycle.add_event(session, letter.job_id, note)


def message_of(job: JobRow) -> WebhookMessage:
    """What a message says of a job that is over."""
    data = {
        "job_id": job.id,
        "name": job.name,
        "status": job.status,
        "verdict": job.verdict,
        "error_code": None if job.error is None else job.error["code"],
        "url": f"/v1/jobs/{job.id}",
    }
    message = {"type": f"job.{job.status}", "timestamp": job.finished_at, "data": WebhookData.model_validate(data)}
    return WebhookMessage.model_validate(message)


def headers_of(letter: Letter, *, at: int) -> dict[str, str]:
    """Headers of a try made at Unix time `at`: one signature per secret."""
    return {
        "content-type": "application/json",
        "user-agent": f"stillhouse/{stillhouse.__version__}",
        "webhook-id": letter.made.delivery_id,
        "webhook-timestamp": str(at),
        "webhook-signature": signatures(letter.secrets, letter.made.delivery_id, at, letter.body),
    }


def signatures(secrets: Sequence[bytes], id: str, at: int, body: bytes) -> str:
    """`v1,` and the base64 of HMAC-SHA256 over `id.at.body`, for each secret, with spaces between."""
    signed = f"{id}.{at}.".encode() + body
    digests = (hmac.digest(secret, signed, hashlib.sha256) for secret in secrets)
    return " ".join("v1," + base64.b64encode(digest).decode() for digest in digests)


def pause_after(attempt: int) -> float:
    """Seconds from the failed try number `attempt` to the next, with jitter."""
    return SCHEDULE_SECONDS[attempt - 1] * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 (spreads load)


def start(courier: Courier, stop: threading.Event, *, every_seconds: float) -> list[threading.Thread]:
    """Deliver in threads of their own until `stop` is set; each looks for tries that are due so often."""
    threads = [
        threading.Thread(target=_run, args=(courier, stop, every_seconds), name=f"webhooks-{number}", daemon=True)
        for number in range(_THREADS)
    ]
    for thread in threads:
        thread.start()
    return threads


def wait(threads: Sequence[threading.Thread], *, seconds: float) -> None:
    """Let tries under way end, for at most `seconds` in all."""
    until = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))


def _run(courier: Courier, stop: threading.Event, every_seconds: float) -> None:
    while not stop.is_set():
        try:
            busy = courier.deliver_next()
        except Exception as error:  # noqa: BLE001 - whatever is away now is asked again; a claimed try is made again
            log.warning("webhooks failed", error=type(error).__name__)
            busy = False
        if not busy:
            stop.wait(every_seconds)


def _error_of(status: int) -> str | None:
    if 200 <= status < 300:
        return None
    if status == 410:
        return "gone"
    return "redirect" if 300 <= status < 400 else "bad_status"


def _retry_note(letter: Letter, outcome: Outcome, at: datetime) -> Note:
    message = (
        f"{_failure(letter, outcome)} Try {letter.made.attempt + 1} of {TRIES} follows at {at:%Y-%m-%d %H:%M:%S} UTC."
    )
    return _note(letter, outcome, "pending", message, level="warning", next_at=at)


def _last_note(letter: Letter, outcome: Outcome, ending: str) -> Note:
    if ending == "delivered":
        return _note(letter, outcome, ending, f"The webhook at {letter.endpoint} was told (HTTP {outcome.status}).")
    return _note(letter, outcome, ending, f"{_failure(letter, outcome)} No further try is made.", level="error")


def _failure(letter: Letter, outcome: Outcome) -> str:
    assert outcome.error is not None
    status = "" if outcome.status is None else f" (HTTP {outcome.status})"
    return f"The webhook at {letter.endpoint} was not told{status}. {WEBHOOK_ERRORS[outcome.error]}"


def _note(
    letter: Letter, outcome: Outcome, status: str, message: str, *, level: str = "info", next_at: datetime | None = None
) -> Note:
    data = {
        "delivery_id": letter.made.delivery_id,
        "status": status,
        "attempt": letter.made.attempt,
        "last_status": outcome.status,
        "last_error": outcome.error,
        "next_at": None if next_at is None else next_at.isoformat(),
    }
    return Note(type="webhook", level=level, message=message, data=data)
