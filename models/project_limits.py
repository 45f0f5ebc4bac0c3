"""Limits of one project in place of the service's: an operator sets them, everybody who checks a limit asks here."""

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from models.project import ProjectRow
from stillhouse.spec.limits import Limits, ProjectLimits


def of(session: Session, project_id: str) -> ProjectLimits:
    """What an operator has set for a project; what is None is as the service's settings say."""
    found = session.execute(select(ProjectRow.limits).where(ProjectRow.id == project_id)).scalar_one_or_none()
    return ProjectLimits.model_validate(found or {})


def in_force(session: Session, project_id: str, limits: Limits) -> Limits:
    """The service's `limits`, with the project's own in their place."""
    return limits.model_copy(update=of(session, project_id).model_dump(exclude_none=True))


def every(session: Session) -> dict[str, ProjectLimits]:
    """By the names of all projects."""
    rows = session.execute(select(ProjectRow.name, ProjectRow.limits).order_by(ProjectRow.name))
    return {name: ProjectLimits.model_validate(limits or {}) for name, limits in rows}


def change(session: Session, project: str, changes: dict[str, int | None]) -> ProjectLimits | None:
    """Set limits of the project of that name; None takes one back to the service's. None: there is no such project."""
    query = select(ProjectRow.limits).where(ProjectRow.name == project).with_for_update()
    found = session.execute(query).one_or_none()
    if found is None:
        return None
    limits = ProjectLimits.model_validate((found.limits or {}) | changes)
    kept = limits.model_dump(exclude_none=True)
    session.execute(update(ProjectRow).where(ProjectRow.name == project).values(limits=kept))
    return limits
