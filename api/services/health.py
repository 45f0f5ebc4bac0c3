"""Looks at the parts of the service."""

from sqlalchemy.exc import SQLAlchemyError

import stillhouse
from api.parts import Parts
from models import schema, workers
from stillhouse.spec.errors import Unavailable
from stillhouse.spec.views import Readiness, Version

OK = "ok"


def readiness(parts: Parts) -> Readiness:
    """Ask each part."""
    database, fresh = _database(parts)
    checks = {"database": database, "broker": _broker(parts), "storage": _storage(parts)}
    return Readiness(ready=all(found == OK for found in checks.values()), checks=checks, workers=fresh)


def version(parts: Parts) -> Version:
    """Versions of the code and of the database's schema, when it can be read."""
    try:
        with parts.database.read() as session:
            found = schema.revision(session)
    except SQLAlchemyError:
        found = None
    return Version(version=stillhouse.__version__, database_revision=found)


def _database(parts: Parts) -> tuple[str, int]:
    try:
        with parts.database.read() as session:
            if schema.is_behind(schema.revision(session)):
                return "The database lacks migrations of this release: python -m models.migrate", 0
            return OK, workers.fresh(session, within_seconds=parts.settings.lease_seconds)
    except SQLAlchemyError:
        return "The database does not answer, or was not migrated.", 0


def _broker(parts: Parts) -> str:
    return OK if parts.doorbell.waiting() is not None else "The broker does not answer; jobs wait in the database."


def _storage(parts: Parts) -> str:
    try:
        parts.storage.check()
    except Unavailable as error:
        return error.detail
    return OK
