"""Webhooks: how a job tells that it is over, what the message says, and what is kept of its delivery.

Messages follow Standard Webhooks 1.0 (https://www.standardwebhooks.com): headers `webhook-id`, `webhook-timestamp`
and `webhook-signature`; any library of that standard verifies them with the project's secret.
"""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator
from pydantic_core import PydanticCustomError

from stillhouse.spec.base import Contract, LaxTuple, View
from stillhouse.spec.states import Verdict
from stillhouse.spec.web_url import MAX_URL_CHARACTERS, BadUrl, parse_url

JobEnd = Literal["succeeded", "failed", "cancelled"]
ALL_ENDS: tuple[JobEnd, ...] = ("succeeded", "failed", "cancelled")


def _callable_url(url: str) -> str:
    try:
        parse_url(url)
    except BadUrl as error:
        raise PydanticCustomError("bad_url", "{sentence}", {"sentence": str(error)}) from None
    return url


class Webhook(Contract):
    """Where to POST when the job is over. The message is signed with the project's webhook secret."""

    url: Annotated[str, Field(max_length=MAX_URL_CHARACTERS), AfterValidator(_callable_url)]
    """An https address that the service may reach: no user name, no fragment, no address of a private network."""
    events: Annotated[tuple[JobEnd, ...], LaxTuple, Field(min_length=1, max_length=3)] = ALL_ENDS
    """Which ends are told of."""

    @field_validator("events")
    @classmethod
    def _each_once(cls, events: tuple[JobEnd, ...]) -> tuple[JobEnd, ...]:
        if len(set(events)) < len(events):
            raise PydanticCustomError("duplicate", "Each event may appear once.")
        return events


class WebhookData(View):
    """Which job ended, and how. Thin on purpose: `GET` the url for the rest."""

    job_id: str
    name: str | None
    status: JobEnd
    verdict: Verdict | None
    error_code: str | None
    """Of a failed job."""
    url: str
    """Path of the job below the service's address."""


class WebhookMessage(View):
    """The body of a delivery. The same bytes at every try."""

    type: Literal["job.succeeded", "job.failed", "job.cancelled"]
    timestamp: datetime
    """When the job ended."""
    data: WebhookData


DeliveryStatus = Literal["pending", "delivered", "gave_up"]


class WebhookDelivery(View):
    """How the message of a job fares."""

    id: str
    """The header `webhook-id` of every try: a receiver that has seen it can drop the message."""
    object: Literal["webhook_delivery"] = "webhook_delivery"
    job_id: str
    type: Literal["job.succeeded", "job.failed", "job.cancelled"]
    endpoint: str
    """Scheme, host and port of the URL."""
    status: DeliveryStatus
    attempts: int
    """Tries begun."""
    next_at: datetime | None
    """When the next try is due; None once there will be none."""
    last_status: int | None
    """HTTP status of the last answer."""
    last_error: str | None
    """Why the last try failed: one of `WEBHOOK_ERRORS`."""
    created_at: datetime
    finished_at: datetime | None


class WebhookSecret(View):
    """What deliveries of the project are signed with."""

    object: Literal["webhook_secret"] = "webhook_secret"
    secret: str
    """`whsec_` and 32 bytes in base64: give it to the receiver."""
    previous_signs_until: datetime | None
    """After a rotation: until then each message carries a second signature, made with the secret before."""


WEBHOOK_ERRORS: dict[str, str] = {
    "bad_status": "The receiver answered with a status other than 2xx.",
    "redirect": "The receiver answered with a redirect, and redirects are not followed.",
    "gone": "The receiver answered 410: it wants no more messages.",
    "no_answer": "The host has no address the service may call, or gave no valid answer in time.",
    "certificate": "The receiver's TLS certificate is not valid for its name.",
    "url_not_allowed": "The operator no longer allows this URL.",
    "secret_unreadable": "The stored webhook secret cannot be read; rotating it makes a new one.",
}
"""Values of `last_error`."""
