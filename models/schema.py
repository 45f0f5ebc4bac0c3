"""Which schema a database has, and which this release knows. Apart from `models.migrate`: asking needs no alembic."""

import re
import sys
from functools import cache
from pathlib import Path

from sqlalchemy import column, select, table
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from core.db import Database

VERSIONS = Path(__file__).resolve().parent.parent / "migrations" / "versions"
_LINE = re.compile(r"(?m)^(revision|down_revision) = '([^']+)'")


class DatabaseIsNewer(Exception):
    """A newer release has migrated the database; the message says so."""


def revision(session: Session) -> str | None:
    """The revision alembic noted. Raises when the database was never migrated."""
    return session.execute(select(column("version_num")).select_from(table("alembic_version"))).scalar_one_or_none()


@cache
def known() -> frozenset[str]:
    """All revisions of this release."""
    return frozenset(found for name, found in _lines() if name == "revision")


@cache
def head() -> str:
    """The newest of them: the one no other builds upon."""
    [newest] = known() - {found for name, found in _lines() if name == "down_revision"}
    return newest


def is_behind(found: str | None) -> bool:
    """True when a migration of this release is missing. Not of a newer database: it has all that this one needs."""
    return found is None or (found in known() and found != head())


def check(database: Database) -> None:
    """Raises DatabaseIsNewer. A database that is away, or was never migrated, is none of this function's business."""
    try:
        with database.read() as session:
            found = revision(session)
    except SQLAlchemyError:
        return
    if found is not None and found not in known():
        raise DatabaseIsNewer(
            f"The database is at revision {found}, and this release knows none after {head()}: a newer release has "
            "migrated it. Start that one, or restore a backup made before."
        )


def check_or_exit(url: str) -> None:
    """The same for the start of a process: it ends with the message on standard error and exit status 1."""
    database = Database(url)
    try:
        check(database)
    except DatabaseIsNewer as error:
        sys.exit(str(error))
    finally:
        database.close()


def _lines() -> list[tuple[str, str]]:
    return [match for path in VERSIONS.glob("*.py") for match in _LINE.findall(path.read_text(encoding="utf-8"))]
