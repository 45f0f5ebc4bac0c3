"""Alembic's entry: migrates the database it is given, or the one the settings name."""

from typing import Any, Literal

from alembic import context

from core.db import Database
from core.settings import Settings
from models.base import UtcDateTime
from models.tables import metadata


def _render(kind: str, item: Any, _context: Any) -> str | Literal[False]:
    """A migration must not depend on today's code: our column type is written as the plain one."""
    return "sa.DateTime(timezone=True)" if kind == "type" and isinstance(item, UtcDateTime) else False


def run() -> None:
    """Migrate on one connection, each step in its own transaction."""
    url = context.config.get_main_option("sqlalchemy.url") or Settings().resolved_database_url
    database = Database(url)
    with database.engine.connect().execution_options(sqlite_begin="IMMEDIATE") as connection:
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
    database.close()


run()
