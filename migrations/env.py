"""Alembic's entry: migrates the database it is given, or the one the settings name."""

from typing import Any, Literal

from alembic import context
from sqlalchemy import Connection

from core.db import Database
from core.settings import Settings
from models.base import UtcDateTime
from models.tables import metadata

_LOCK = 7455108823
"""Number of the advisory lock: any that nothing else takes."""
_TURN_SECONDS = 600


def _render(kind: str, item: Any, _context: Any) -> str | Literal[False]:
    """A migration must not depend on today's code: our column type is written as the plain one."""
    return "sa.DateTime(timezone=True)" if kind == "type" and isinstance(item, UtcDateTime) else False


def run() -> None:
    """Migrate in one transaction: all steps, or none. Of several processes one migrates, and the others wait for it."""
    url = context.config.get_main_option("sqlalchemy.url") or Settings().resolved_database_url
    database = Database(url)
    try:
        _migrate(database)
    finally:
        database.close()


def _migrate(database: Database) -> None:
    with database.engine.connect().execution_options(sqlite_begin="IMMEDIATE") as connection, connection.begin():
        if connection.dialect.name == "postgresql":  # SQLite has the lock already
            _wait_for_turn(connection)
        context.configure(
            connection=connection,
            target_metadata=metadata,
            render_as_batch=connection.dialect.name == "sqlite",
            render_item=_render,
            compare_type=True,
            compare_server_default=True,
        )
        with context.begin_transaction():
            context.run_migrations()


def _wait_for_turn(connection: Connection) -> None:
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_TURN_SECONDS}s'")
    connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
    # The release before this one still runs: who waits for its tables makes it wait too.
    connection.exec_driver_sql("SET LOCAL lock_timeout = '5s'")


run()
