"""What a caller may ask of a job that exists. A verb on a job that is already where it leads changes nothing."""

from collections.abc import Callable, Collection

from sqlalchemy.orm import Session

from api.parts import Parts
from api.services.jobs import find
from models import verbs
from models.job import JobRow
from stillhouse.spec.errors import Conflict, JobFinished, NotReady, StillhouseError
from stillhouse.spec.states import JobStatus

_OPEN = (JobStatus.QUEUED, JobStatus.RUNNING)


def cancel(parts: Parts, project_id: str, job_id: str) -> JobRow:
    """Stop it for good. Raises JobFinished when it has already succeeded or failed."""
    return _ask(parts, project_id, job_id, "cancel", verbs.request_cancel, (JobStatus.CANCELLING, JobStatus.CANCELLED))


def pause(parts: Parts, project_id: str, job_id: str) -> JobRow:
    """Put it aside. Raises JobFinished, Conflict."""
    return _ask(parts, project_id, job_id, "pause", verbs.request_pause, (JobStatus.PAUSING, JobStatus.PAUSED))


def resume(parts: Parts, project_id: str, job_id: str) -> JobRow:
    """Go on with it. Raises JobFinished, Conflict."""
    return _ask(parts, project_id, job_id, "resume", verbs.request_resume, _OPEN)


def retry(parts: Parts, project_id: str, job_id: str) -> JobRow:
    """Try again what failed or was cancelled. Raises JobFinished when it has succeeded, Conflict."""
    return _ask(parts, project_id, job_id, "retry", verbs.request_retry, _OPEN)


def finish(parts: Parts, project_id: str, job_id: str) -> JobRow:
    """Stop training and make do with the best so far. Raises NotReady when there is no student yet, JobFinished."""

    def ask(session: Session, _: str) -> JobStatus | None:
        row = find(session, project_id, job_id)
        status = JobStatus(row.status)
        if not status.final and status is not JobStatus.CANCELLING and not verbs.can_finish(session, row):
            raise NotReady(
                f"Job {job_id} has no student to finish with yet: it has not begun to distil.",
                hint="Wait until its phase is distilling, or cancel it.",
            )
        return verbs.request_finish(session, job_id)

    return _ask(parts, project_id, job_id, "finish", ask, (*_OPEN, JobStatus.SUCCEEDED))


def _ask(
    parts: Parts,
    project_id: str,
    job_id: str,
    verb: str,
    ask: Callable[[Session, str], JobStatus | None],
    leads_to: Collection[JobStatus],
) -> JobRow:
    with parts.of(project_id).write() as session:
        find(session, project_id, job_id)
        status = ask(session, job_id)
        row = find(session, project_id, job_id)
        session.refresh(row)
    if status not in leads_to:
        raise _refusal(row, verb)
    if status is JobStatus.QUEUED:
        parts.doorbell.ring(job_id)
    return row


def _refusal(row: JobRow, verb: str) -> StillhouseError:
    status = JobStatus(row.status)
    if row.deleted_at is not None and verb == "retry":
        return Conflict(f"Job {row.id} is in the trash.", hint="`restore` it first.")
    if status is JobStatus.SUCCEEDED:
        return JobFinished(
            f"Job {row.id} has succeeded; there is nothing to {verb}.", hint="`clone` makes one like it."
        )
    if status.final:
        said = f"Job {row.id} has failed" if status is JobStatus.FAILED else f"Job {row.id} was cancelled"
        return JobFinished(f"{said}; there is nothing to {verb}.", hint="`retry` tries it again.")
    hint = "`resume` goes on with it." if status in (JobStatus.PAUSED, JobStatus.PAUSING) else "Wait for its end."
    return Conflict(f"Job {row.id} is {status} and cannot be asked to {verb}.", hint=hint)
