"""What a project may still take: uploads by the hour, and bytes in the storage."""

from sqlalchemy.orm import Session
from starlette.requests import Request

from api import rates
from api.auth import Caller
from api.parts import Parts
from models import keys, project_limits, usage
from stillhouse.spec.errors import QuotaExceeded
from stillhouse.spec.views import Usage


def count_upload(parts: Parts, request: Request) -> Caller:
    """One more upload of the caller's project. Raises RateLimited."""
    caller: Caller = request.state.caller
    rates.note(request.scope["state"], parts.upload_rate.spend(caller.project_id))
    return caller


def check_room(parts: Parts, project_id: str, bytes: int) -> None:
    """Raises QuotaExceeded when `bytes` more are more than the project may store, as it looks now."""
    with parts.of(project_id).read() as session:
        _check(parts, session, project_id, bytes)


def take_room(parts: Parts, session: Session, project_id: str, bytes: int) -> None:
    """`bytes` more may be recorded in this transaction. Raises QuotaExceeded.

    Uploads of one project pass here one after the other, and each counts what those before it have recorded: so the
    limit holds however many come at once.
    """
    keys.hold_project(session, project_id)
    _check(parts, session, project_id, bytes)


def _check(parts: Parts, session: Session, project_id: str, bytes: int) -> None:
    stored = usage.stored_bytes(session, project_id)
    limit = project_limits.in_force(session, project_id, parts.settings.limits).max_storage_bytes
    if stored + bytes > limit:
        raise QuotaExceeded(
            f"The project stores {stored:,} bytes; {bytes:,} more would be above its limit of {limit:,}.",
            hint="Delete datasets, models, jobs or teacher outputs you no longer need; the trash counts until it is "
            "emptied. The operator's setting is STILLHOUSE_LIMITS__MAX_STORAGE_BYTES, or `stillhouse limits` for one "
            "project.",
        )


def used(parts: Parts, project_id: str) -> Usage:
    """What the project uses of what it may."""
    with parts.of(project_id).read() as session:
        stored = usage.stored_bytes(session, project_id)
        limits = project_limits.in_force(session, project_id, parts.settings.limits)
    return Usage(
        storage_bytes=stored,
        max_storage_bytes=limits.max_storage_bytes,
        max_requests_per_minute=limits.max_requests_per_minute,
        max_uploads_per_hour=limits.max_uploads_per_hour,
    )
