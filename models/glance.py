"""One look at a job by a caller who polls: is the key good, is the job theirs, has it changed? One statement."""

import sqlite3
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Select, and_, bindparam, or_, select

from core.db import Database
from models.api_key import ApiKeyRow
from models.base import UtcDateTime
from models.job import JobRow

# A look that finds the database locked is taken again in a thread, which may wait.
_BUSY_MS = 20


@dataclass(frozen=True, slots=True)
class Glance:
    """What one look shows of a valid key."""

    key_id: str
    project_id: str
    version: int | None
    """Of the job; None when the project has no such job."""


class WouldBlock(Exception):
    """The answer takes longer than an event loop may wait."""


class Glances:
    """Looks at jobs. Both methods return None when no valid key has this digest."""

    def __init__(self, database: Database) -> None:
        # Each look is one statement: a transaction around it would only add to and fro.
        self._engine = database.engine.execution_options(isolation_level="AUTOCOMMIT")
        self._local = _LocalConnection(database) if database.engine.dialect.name == "sqlite" else None

    def at_once(self, digest: str, job_id: str) -> Glance | None:
        """For the event loop: some microseconds on SQLite. Raises WouldBlock on other databases, or when locked."""
        if self._local is None:
            raise WouldBlock
        return self._local.look(digest, job_id)

    def look(self, digest: str, job_id: str) -> Glance | None:
        """For a thread. Raises SQLAlchemy's DBAPIError when the database is away."""
        with self._engine.connect() as connection:
            row = connection.execute(_STATEMENT, {"digest": digest, "job_id": job_id, "now": _now()}).one_or_none()
        return None if row is None else Glance(row.id, row.project_id, row.version)

    def close(self) -> None:
        """Close what is kept open."""
        if self._local is not None:
            self._local.close()


class _LocalConnection:
    """A SQLite connection of its own, used past SQLAlchemy and by one thread alone."""

    def __init__(self, database: Database) -> None:
        compiled = _STATEMENT.compile(dialect=database.engine.dialect)
        self._sql = str(compiled)
        assert compiled.positiontup == ["job_id", "digest", "now"]
        # Detached: the pool gives it to nobody else, and does not take it back.
        self._pooled = database.engine.raw_connection()
        self._pooled.detach()
        connection: Any = self._pooled.dbapi_connection
        self._connection = connection
        connection.execute(f"PRAGMA busy_timeout={_BUSY_MS}")

    def look(self, digest: str, job_id: str) -> Glance | None:
        try:
            # All rows are fetched, so that the statement ends and holds no snapshot.
            rows = self._connection.execute(self._sql, (job_id, digest, f"{_now():%Y-%m-%d %H:%M:%S.%f}")).fetchall()
        except sqlite3.OperationalError:
            raise WouldBlock from None
        return Glance(*rows[0]) if rows else None

    def close(self) -> None:
        self._connection.close()


def _now() -> datetime:
    # This host's clock: asking for the database's would cost another way there and back.
    return datetime.now(UTC)


def _statement() -> Select[str, str, int]:
    lasts = or_(ApiKeyRow.expires_at.is_(None), ApiKeyRow.expires_at > bindparam("now", type_=UtcDateTime()))
    # Whose job it is: the one condition on tenants that `models.tenancy` does not put, as no session is opened here.
    its_job = and_(
        JobRow.id == bindparam("job_id"), JobRow.project_id == ApiKeyRow.project_id, JobRow.purging_at.is_(None)
    )
    return (
        select(ApiKeyRow.id, ApiKeyRow.project_id, JobRow.version)
        .outerjoin(JobRow, its_job)
        .where(ApiKeyRow.digest == bindparam("digest"), ApiKeyRow.revoked_at.is_(None), lasts)
    )


_STATEMENT = _statement()
