"""`python -m models.migrate`: bring the service's database to the schema of this code."""

import argparse
from pathlib import Path

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
    _parser = argparse.ArgumentParser(prog="python -m models.migrate", description=__doc__)
    _parser.add_argument(
        "--data-dir", type=Path, metavar="FOLDER", help="of `stillhouse up` (default: STILLHOUSE_DATA_DIR, or its own)"
    )
    _folder = _parser.parse_args().data_dir
    _settings = Settings() if _folder is None else Settings(data_dir=_folder)
    schema.check_or_exit(_settings.resolved_database_url)
    upgrade(_settings.resolved_database_url)
