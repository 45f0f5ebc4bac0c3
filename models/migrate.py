"""Bring a database to the schema of this code."""

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from core.db import Database
from core.settings import Settings
from models import schema

_SCRIPTS = schema.VERSIONS.parent


def config(url: str) -> Config:
    """Alembic's configuration for one database."""
    made = Config()
    made.set_main_option("script_location", str(_SCRIPTS))
    made.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
    return made


def upgrade(url: str) -> None:
    """Run the migrations that are missing: all of them, or none when one fails. Harmless when there are none, and
    when several processes do it at once. Raises DatabaseIsNewer."""
    database = Database(url)
    try:
        schema.check(database)
    finally:
        database.close()
    command.upgrade(config(url), "head")


def head() -> str | None:
    """The newest revision this code knows."""
    return ScriptDirectory.from_config(config("sqlite://")).get_current_head()


def current(database: Database) -> str | None:
    """The revision of a database; None when it is empty."""
    with database.engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


if __name__ == "__main__":
    schema.check_or_exit(Settings().resolved_database_url)
    upgrade(Settings().resolved_database_url)
