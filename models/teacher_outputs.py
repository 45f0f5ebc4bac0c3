"""Queries on kept outputs of teachers: who makes them, who reads them, and what makes room.

Of several jobs that need the same outputs at once, one makes them: the row is its claim, guarded by its lease.
"""

from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import ColumnElement, delete, exists, func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from models import lifecycle
from models.base import db_now
from models.job import JobRow
from models.lifecycle import Lease
from models.teacher_output import TeacherOutputRow, TeacherOutputUseRow
from stillhouse.spec.events import OutputsWanted
from stillhouse.spec.ids import new_id
from stillhouse.spec.states import ACTIVE

_LONGEST_NAME = 200


@dataclass(frozen=True, kw_only=True)
class Turn:
    """What a job that needs outputs may do."""

    what: Literal["read", "make", "wait"]
    storage_key: str | None = None
    """Of what there is to read."""
    evicted: tuple[str, ...] = ()
    """Storage keys of files that made room, to be removed after the commit."""


WAIT = Turn(what="wait")


def turn(
    session: Session,
    project_id: str,
    lease: Lease,
    wanted: OutputsWanted,
    *,
    dataset_id: str,
    teacher_model_id: str | None,
    max_bytes: int,
) -> Turn:
    """Whose turn it is: read what is ready, make what nobody makes, or wait for who does."""
    if lifecycle.status_under(session, lease) is None:
        return WAIT  # another owner of the job decides
    found = session.scalars(_of(project_id, wanted.key).with_for_update()).one_or_none()
    if found is None:
        evicted = make_room(session, project_id, wanted.bytes, max_bytes=max_bytes)
        row = _row(session, project_id, lease, wanted, dataset_id, teacher_model_id)
        return Turn(what="make", evicted=evicted) if _added(session, row) else WAIT
    if found.status == "ready":
        _use(session, found, lease)
        return Turn(what="read", storage_key=found.storage_key)
    if (found.job_id, found.attempt) != (lease.job_id, lease.attempt):
        if _at_work(session, found):
            return WAIT
        left = file_key(project_id, found.key, found.job_id, found.attempt)
        found.job_id, found.attempt = lease.job_id, lease.attempt
        return Turn(what="make", evicted=(left,))  # stored, perhaps, and never recorded
    return Turn(what="make")


def file_key(project_id: str, key: str, job_id: str, attempt: int) -> str:
    """Where an attempt stores what it made: no other attempt can touch it."""
    return f"projects/{project_id}/teacher-outputs/{key}/{job_id}-a{attempt}.safetensors"


def ready(session: Session, project_id: str, lease: Lease, key: str, *, storage_key: str) -> bool:
    """The claim's outputs are in the storage. False, and nothing changed, when it is no longer this attempt's.

    A commit whose answer was lost may have been done: then they are on record already, whoever holds the job by now.
    """
    if session.scalars(_of(project_id, key).where(TeacherOutputRow.storage_key == storage_key)).first() is not None:
        return True
    if lifecycle.status_under(session, lease) is None:
        return False
    values = {"status": "ready", "storage_key": storage_key, "last_used_at": db_now(session)}
    statement = update(TeacherOutputRow).where(*_claimed(project_id, lease, key)).values(**values)
    found = session.execute(statement.returning(TeacherOutputRow.id)).scalar_one_or_none()
    if found is None:
        return False
    session.add(TeacherOutputUseRow(output_id=found, job_id=lease.job_id))
    session.flush()
    return True


def give_up(session: Session, project_id: str, lease: Lease, key: str) -> None:
    """Leave the claim to others: the outputs could not be kept."""
    session.execute(delete(TeacherOutputRow).where(*_claimed(project_id, lease, key)))


def forget(session: Session, project_id: str, key: str, storage_key: str) -> None:
    """Drop outputs whose file, at `storage_key`, is damaged or gone. Newer ones under the same key stay."""
    query = _of(project_id, key).where(TeacherOutputRow.storage_key == storage_key)
    if (found := session.scalars(query).one_or_none()) is not None:
        _delete(session, found)


def make_room(session: Session, project_id: str, needed: int, *, max_bytes: int) -> tuple[str, ...]:
    """Drop outputs, the least recently used first, until `needed` more bytes are within the limit. What a running job
    reads or makes stays, so the limit may be passed as long as it runs. Returns the storage keys of the files."""
    mine = TeacherOutputRow.project_id == project_id
    total = session.execute(select(func.coalesce(func.sum(TeacherOutputRow.bytes), 0)).where(mine)).scalar_one()
    evicted = []
    query = select(TeacherOutputRow).where(mine).order_by(TeacherOutputRow.last_used_at, TeacherOutputRow.id)
    for row in session.scalars(query).all():
        if int(total) + needed <= max_bytes:
            break
        if not _held_alone(session, row) or in_use(session, row):
            continue
        total -= row.bytes
        if row.storage_key is not None:
            evicted.append(row.storage_key)
        _delete(session, row)
    return tuple(evicted)


def in_use(session: Session, row: TeacherOutputRow) -> bool:
    """True while a running job reads or makes them."""
    if row.status == "making":
        return _at_work(session, row)
    reading = select(TeacherOutputUseRow.job_id).join(JobRow, JobRow.id == TeacherOutputUseRow.job_id)
    reading = reading.where(TeacherOutputUseRow.output_id == row.id, JobRow.status.in_(ACTIVE))
    return bool(session.execute(select(exists(reading))).scalar_one())


def get(session: Session, project_id: str, output_id: str) -> TeacherOutputRow | None:
    """Kept outputs of this project."""
    query = select(TeacherOutputRow).where(
        TeacherOutputRow.id == output_id,
        TeacherOutputRow.project_id == project_id,
        TeacherOutputRow.status == "ready",
    )
    return session.scalars(query.with_for_update()).one_or_none()


def remove(session: Session, row: TeacherOutputRow) -> bool:
    """Drop kept outputs. False, and nothing changed, while a running job reads them."""
    if in_use(session, row):
        return False
    _delete(session, row)
    return True


def page(session: Session, project_id: str, *, before: str | None, limit: int) -> list[TeacherOutputRow]:
    """Kept outputs, newest first; one more than `limit` tells that there are more."""
    query = select(TeacherOutputRow).where(
        TeacherOutputRow.project_id == project_id, TeacherOutputRow.status == "ready"
    )
    if before is not None:
        query = query.where(TeacherOutputRow.id < before)
    return list(session.scalars(query.order_by(TeacherOutputRow.id.desc()).limit(limit + 1)))


def _held_alone(session: Session, row: TeacherOutputRow) -> bool:
    """False while another transaction has it: somebody takes it up, or has it go, at this moment."""
    query = select(TeacherOutputRow).where(TeacherOutputRow.id == row.id).with_for_update(skip_locked=True)
    return session.scalars(query, execution_options={"populate_existing": True}).one_or_none() is not None


def _of(project_id: str, key: str) -> Any:
    return select(TeacherOutputRow).where(TeacherOutputRow.project_id == project_id, TeacherOutputRow.key == key)


def _claimed(project_id: str, lease: Lease, key: str) -> list[ColumnElement[bool]]:
    return [
        TeacherOutputRow.project_id == project_id,
        TeacherOutputRow.key == key,
        TeacherOutputRow.status == "making",
        TeacherOutputRow.job_id == lease.job_id,
        TeacherOutputRow.attempt == lease.attempt,
    ]


def _row(
    session: Session,
    project_id: str,
    lease: Lease,
    wanted: OutputsWanted,
    dataset_id: str,
    teacher_model_id: str | None,
) -> TeacherOutputRow:
    now = db_now(session)
    return TeacherOutputRow(
        id=new_id("out"),
        project_id=project_id,
        key=wanted.key,
        status="making",
        dataset_id=dataset_id,
        teacher=wanted.teacher[:_LONGEST_NAME],
        teacher_model_id=teacher_model_id,
        job_id=lease.job_id,
        attempt=lease.attempt,
        part=wanted.part,
        views=wanted.views,
        top_k=wanted.top_k,
        rows=wanted.rows,
        bytes=wanted.bytes,
        hits=0,
        created_at=now,
        last_used_at=now,
    )


def _added(session: Session, row: TeacherOutputRow) -> bool:
    """False when somebody else was a moment faster."""
    try:
        with session.begin_nested():
            session.add(row)
    except IntegrityError:
        return False
    return True


def _use(session: Session, row: TeacherOutputRow, lease: Lease) -> None:
    row.last_used_at = db_now(session)
    if session.get(TeacherOutputUseRow, (row.id, lease.job_id)) is None:
        row.hits += 1
        session.add(TeacherOutputUseRow(output_id=row.id, job_id=lease.job_id))
    session.flush()


def _at_work(session: Session, row: TeacherOutputRow) -> bool:
    """True while the lease of the attempt that makes them holds."""
    query = select(JobRow.id).where(
        JobRow.id == row.job_id,
        JobRow.attempt == row.attempt,
        JobRow.status.in_(ACTIVE),
        JobRow.lease_until > db_now(session),
    )
    return session.execute(query).one_or_none() is not None


def _delete(session: Session, row: TeacherOutputRow) -> None:
    session.execute(delete(TeacherOutputUseRow).where(TeacherOutputUseRow.output_id == row.id))
    session.delete(row)
    session.flush()
