"""Which schema a database has. Apart from `models.migrate`, so that asking needs no alembic."""

from sqlalchemy import column, select, table
from sqlalchemy.orm import Session


def revision(session: Session) -> str | None:
    """The revision alembic noted. Raises when the database was never migrated."""
    return session.execute(select(column("version_num")).select_from(table("alembic_version"))).scalar_one_or_none()
