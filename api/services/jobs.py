"""What a caller may do with jobs: submit, look, list."""

import hashlib
import re
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError, field_validator
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from api.bodies import JsonBody
from api.parts import Parts
from api.services import quotas, specs
from api.services.missing import missing
from api.services.paging import TrashQuery, page_of, start_of
from api.views import job_view
from models import jobs, queue
from models.job import JobRow
from models.jobs import JobFilter
from stillhouse.spec.base import Labels, LaxTuple, Name
from stillhouse.spec.errors import IdempotencyMismatch, Invalid
from stillhouse.spec.ids import is_id
from stillhouse.spec.states import JobStatus
from stillhouse.spec.views import Job, Page, ValidatedJob

_KEY = re.compile(r"[\x21-\x7e]{1,255}")

_LABELS: TypeAdapter[dict[str, str]] = TypeAdapter(Labels)


class JobsQuery(TrashQuery):
    """Which jobs a list shows. Filters are joined by and; several statuses by or."""

    status: Annotated[tuple[str, ...], LaxTuple, Field(max_length=20)] = ()
    """One or more statuses, comma-separated or repeated."""
    name: Name | None = None
    """Exactly this name."""
    label: Annotated[tuple[str, ...], LaxTuple, Field(max_length=32)] = ()
    """`key:value`, repeated for several."""

    @field_validator("status")
    @classmethod
    def _known_statuses(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        names = tuple(name.strip() for item in given for name in item.split(","))
        known = [status.value for status in JobStatus]
        if not set(names) <= set(known):
            raise ValueError(f"a status is one of {', '.join(known)}")
        return names

    @field_validator("label")
    @classmethod
    def _pairs(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        for item in given:
            key, colon, value = item.partition(":")
            if not colon or not _is_label(key, value):
                raise ValueError("a label filter is written key:value, as in label=team:vision")
        return given

    def wanted(self) -> JobFilter:
        """The same, for the record."""
        pairs = [item.partition(":") for item in self.label]
        return JobFilter(
            statuses=tuple(JobStatus(name) for name in self.status),
            name=self.name,
            labels=tuple((key, value) for key, _, value in pairs),
            deleted=self.deleted,
        )


@dataclass(frozen=True, kw_only=True)
class Submitted:
    """Outcome of a submission."""

    row: JobRow
    replayed: bool
    """True when an earlier submission with the same idempotency key made the job."""


def submit(
    parts: Parts,
    project_id: str,
    body: JsonBody,
    *,
    idempotency_key: str | None,
    digest: str | None = None,
    cloned_from: str | None = None,
) -> Submitted:
    """Record a job, then ring for a worker. The job stands even when the broker is away.

    `digest`: of what the caller sent, when that is not the spec's body.
    """
    digest = digest or hashlib.sha256(body.raw).hexdigest()
    if idempotency_key is not None:
        _check_key(idempotency_key)
        if row := _replayed(parts, project_id, idempotency_key, digest):
            return Submitted(row=row, replayed=True)
    quotas.check_room(parts, project_id, 1)
    fitted = specs.fit(parts, project_id, body)
    try:
        row = _record(parts, project_id, fitted, idempotency_key, digest, cloned_from)
    except IntegrityError:
        # Another request with the same key was faster.
        if idempotency_key is None:
            raise
        replayed = _replayed(parts, project_id, idempotency_key, digest)
        if replayed is None:
            raise
        return Submitted(row=replayed, replayed=True)
    parts.doorbell.ring(row.id)
    return Submitted(row=row, replayed=False)


def validate(parts: Parts, project_id: str, body: JsonBody) -> ValidatedJob:
    """What would run, without running it."""
    fitted = specs.fit(parts, project_id, body)
    return ValidatedJob(resolved=fitted.resolved, estimate=specs.estimate(fitted), warnings=specs.warnings(fitted))


def page(parts: Parts, project_id: str, query: JobsQuery) -> Page[Job]:
    """A page of jobs."""
    before = start_of(parts, project_id, "jobs", query)
    with parts.of(project_id).read() as session:
        rows = jobs.page(session, project_id, query.wanted(), before=before, limit=query.limit)
    return page_of(parts, project_id, "jobs", query, rows, lambda row: job_view(row, parts.line.place_of(row)))


def find(session: Session, project_id: str, job_id: str) -> JobRow:
    """A job of this project. Raises NotFound, the same for one that does not exist and one of somebody else."""
    row = jobs.get(session, project_id, job_id) if is_id("job", job_id) else None
    if row is None:
        raise missing("job", job_id)
    return row


def _record(
    parts: Parts,
    project_id: str,
    fitted: specs.Fitted,
    idempotency_key: str | None,
    digest: str,
    cloned_from: str | None,
) -> JobRow:
    with parts.of(project_id).write() as session:
        queue.make_room(session, project_id, limits=parts.settings.limits)
        specs.hold_inputs(session, project_id, fitted)
        row = jobs.create(
            session,
            project_id,
            spec=fitted.spec,
            resolved=fitted.resolved,
            dataset_id=fitted.dataset.id,
            cloned_from=cloned_from,
        )
        if idempotency_key is not None:
            jobs.remember(session, project_id, idempotency_key, body_sha256=digest, job_id=row.id)
    return row


def _replayed(parts: Parts, project_id: str, key: str, digest: str) -> JobRow | None:
    with parts.of(project_id).read() as session:
        earlier = jobs.remembered(session, project_id, key)
        if earlier is None:
            return None
        if earlier.body_sha256 != digest:
            raise IdempotencyMismatch(
                "This Idempotency-Key was already used with another body.",
                hint="Use a new key for a new job; send the same bytes to learn of the first.",
            )
        return jobs.get(session, project_id, earlier.job_id)


def _check_key(key: str) -> None:
    if _KEY.fullmatch(key) is None:
        raise Invalid.at(
            "header:Idempotency-Key", "bad_key", "The key must be 1 to 255 printable ASCII characters, without spaces."
        )


def _is_label(key: str, value: str) -> bool:
    try:
        _LABELS.validate_python({key: value})
    except ValidationError:
        return False
    return True
