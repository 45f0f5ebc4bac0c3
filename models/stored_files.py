"""Which columns name files of the storage: the one list that purging, `fsck` and backups go by.

A row names a file from the transaction that records both, and no later row names it too: so a file nobody names any
more stays unnamed. Several rows may name one file (a job's weights are an artifact and a model).
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import ColumnElement, and_, exists, null, select
from sqlalchemy.orm import Session

from models.artifact import ArtifactRow
from models.checkpoint import CheckpointRow
from models.dataset import DatasetRow
from models.job import JobRow
from models.model import ModelRow
from models.teacher_output import TeacherOutputRow

_KEYS_A_QUERY = 500


@dataclass(frozen=True, kw_only=True)
class KeyColumn:
    """A column that names files, and what its rows know of them."""

    table: Any
    """The mapped class."""
    key: Any
    kept: ColumnElement[bool]
    """The row still needs its file: it is not being purged."""
    when_lost: Literal["mark", "drop"]
    """What becomes of a row whose file is gone: it says so (`missing_at`), or goes too, as it can be made again."""
    bytes: Any = None
    """Column of the file's size."""
    sha256: Any = None
    """Column of the file's digest."""


KEY_COLUMNS = (
    KeyColumn(
        table=DatasetRow,
        key=DatasetRow.storage_key,
        kept=DatasetRow.purging_at.is_(None),
        when_lost="mark",
        bytes=DatasetRow.bytes,
        sha256=DatasetRow.sha256,
    ),
    KeyColumn(
        table=ModelRow,
        key=ModelRow.weights_key,
        kept=ModelRow.purging_at.is_(None),
        when_lost="mark",
        bytes=ModelRow.bytes,
        sha256=ModelRow.sha256,
    ),
    KeyColumn(
        table=ArtifactRow,
        key=ArtifactRow.storage_key,
        kept=exists().where(JobRow.id == ArtifactRow.job_id, JobRow.purging_at.is_(None)),
        when_lost="mark",
        bytes=ArtifactRow.bytes,
        sha256=ArtifactRow.sha256,
    ),
    KeyColumn(
        table=TeacherOutputRow,
        key=TeacherOutputRow.storage_key,
        kept=TeacherOutputRow.storage_key.is_not(None),
        when_lost="drop",
    ),
    KeyColumn(
        table=CheckpointRow,
        key=CheckpointRow.storage_key,
        kept=exists().where(JobRow.id == CheckpointRow.job_id, JobRow.purging_at.is_(None)),
        when_lost="drop",
        bytes=CheckpointRow.bytes,
        sha256=CheckpointRow.sha256,
    ),
)
"""All of them: a test compares this with the tables."""


@dataclass(frozen=True, kw_only=True)
class NamedFile:
    """A file as a row names it."""

    column: KeyColumn
    row_id: tuple[Any, ...]
    key: str
    kept: bool
    """The row still needs it."""
    bytes: int | None
    sha256: str | None
    missing: bool
    """The row says already that the file is lost."""

    @property
    def what(self) -> str:
        """The row in words."""
        return f"{self.column.table.__tablename__} {' '.join(map(str, self.row_id))}"


def named(session: Session) -> Iterator[NamedFile]:
    """All files that rows name. One that several rows name comes several times."""
    for column in KEY_COLUMNS:
        identity = list(column.table.__mapper__.primary_key)
        missing = column.table.missing_at if column.when_lost == "mark" else null()
        facts = [null() if fact is None else fact for fact in (column.bytes, column.sha256)]
        query = select(column.key, column.kept.label("kept"), *facts, missing, *identity)
        query = query.where(column.key.is_not(None), column.key != "")
        for key, kept, bytes, sha256, missing_at, *row_id in session.execute(query.execution_options(yield_per=1000)):
            yield NamedFile(
                column=column,
                row_id=tuple(row_id),
                key=key,
                kept=bool(kept),
                bytes=bytes,
                sha256=sha256,
                missing=missing_at is not None,
            )


def needed(session: Session, keys: Collection[str]) -> set[str]:
    """Those of `keys` that some row still needs."""
    found: set[str] = set()
    wanted = sorted(set(keys))
    for start in range(0, len(wanted), _KEYS_A_QUERY):
        some = wanted[start : start + _KEYS_A_QUERY]
        for column in KEY_COLUMNS:
            found |= set(session.scalars(select(column.key).where(and_(column.key.in_(some), column.kept))))
    return found


def of_job(session: Session, job_id: str) -> set[str]:
    """Keys in rows that belong to one job and go with it."""
    columns = [column for column in KEY_COLUMNS if hasattr(column.table, "job_id")]
    mine = [c for c in columns if c.table not in (ModelRow, TeacherOutputRow)]
    return {key for c in mine for key in session.scalars(select(c.key).where(c.table.job_id == job_id)) if key}
