"""Files of finished jobs: which there are, and whether they can be had."""

import re

from sqlalchemy.orm import Session

from api.parts import Parts
from api.services import jobs
from models import results
from models.artifact import ArtifactRow
from models.job import JobRow
from stillhouse.spec.errors import Gone, NotFound, NotReady, StillhouseError
from stillhouse.spec.states import JobStatus

_NAME = re.compile(r"[\w.\-]{1,100}", re.ASCII)


def listed(parts: Parts, project_id: str, job_id: str) -> list[ArtifactRow]:
    """All files of a job; none before it has succeeded."""
    with parts.of(project_id).read() as session:
        jobs.find(session, project_id, job_id)
        return results.artifacts(session, job_id)


def one(parts: Parts, project_id: str, job_id: str, name: str) -> ArtifactRow:
    """One file. Raises NotReady while the job is under way, NotFound when it has no such file, Gone when it is lost."""
    with parts.of(project_id).read() as session:
        job = jobs.find(session, project_id, job_id)
        row = _named(session, job_id, name)
    if row is None:
        raise _absent(job)
    _refuse_lost([row])
    return row


def all_of(parts: Parts, project_id: str, job_id: str) -> list[ArtifactRow]:
    """All files of a finished job. Raises NotReady or NotFound when there are none, Gone when one is lost."""
    with parts.of(project_id).read() as session:
        job = jobs.find(session, project_id, job_id)
        rows = results.artifacts(session, job_id)
    if not rows:
        raise _absent(job)
    _refuse_lost(rows)
    return rows


def _refuse_lost(rows: list[ArtifactRow]) -> None:
    if lost := [row.name for row in rows if row.missing_at is not None]:
        hint = "Ask the operator for a backup, or post the job again."
        raise Gone(f"The storage has lost {', '.join(lost)} of job {rows[0].job_id}.", hint=hint)


def _named(session: Session, job_id: str, name: str) -> ArtifactRow | None:
    return results.artifact(session, job_id, name) if _NAME.fullmatch(name) else None


def _absent(job: JobRow) -> StillhouseError:
    status = JobStatus(job.status)
    if not status.final:
        return NotReady(f"Job {job.id} is {status}; its files come when it has succeeded.", hint="Wait for the job.")
    if status is JobStatus.SUCCEEDED:
        return NotFound(f"Job {job.id} has no such file.", hint=f"GET /v1/jobs/{job.id}/artifacts lists them.")
    return NotFound(f"Job {job.id} is {status} and left no files.", hint="Its events and log say what happened.")
