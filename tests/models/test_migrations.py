"""The migrations make what the code declares, on both databases, and can be taken back."""

import re
from pathlib import Path

import pytest
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, inspect, make_url

from core.db import Database
from models import migrate
from models.tables import metadata

VERSIONS = Path(__file__).resolve().parents[2] / "migrations" / "versions"


@pytest.fixture(params=["sqlite", "postgres"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database without any table."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'empty.db'}"
    url: str = request.getfixturevalue("postgres_url")
    command.downgrade(migrate.config(url), "base")
    return url


def tables(url: str) -> set[str]:
    engine = create_engine(url)
    found = set(inspect(engine).get_table_names()) - {"alembic_version"}
    engine.dispose()
    return found


def test_the_migrations_make_what_the_tables_declare(empty_url: str) -> None:
    assert tables(empty_url) == set()
    migrate.upgrade(empty_url)
    command.check(migrate.config(empty_url))
    assert tables(empty_url) == set(metadata.tables)


def test_migrating_again_changes_nothing(empty_url: str) -> None:
    for _ in range(2):
        migrate.upgrade(empty_url)
    database = Database(empty_url)
    assert migrate.current(database) == migrate.head()
    database.close()


def test_each_migration_can_be_taken_back(empty_url: str) -> None:
    migrate.upgrade(empty_url)
    command.downgrade(migrate.config(empty_url), "base")
    assert tables(empty_url) == set()
    migrate.upgrade(empty_url)
    command.check(migrate.config(empty_url))


def test_the_history_is_one_line_of_dated_steps() -> None:
    script = ScriptDirectory.from_config(migrate.config("sqlite://"))
    assert len(script.get_heads()) == 1
    names = sorted(path.name for path in VERSIONS.glob("*.py"))
    assert names
    assert all(re.fullmatch(r"\d{8}_\d{2}_[a-z_]+\.py", name) for name in names), names
    revisions = [revision.revision for revision in script.walk_revisions()]
    assert sorted(revisions) == [name[:11] for name in names]


def test_no_migration_depends_on_todays_code() -> None:
    for path in VERSIONS.glob("*.py"):
        assert not re.search(r"(?m)^(from|import) (models|core|stillhouse)", path.read_text()), path.name


def test_a_url_with_a_percent_sign_is_understood() -> None:
    url = make_url("postgresql+psycopg://u:p%40ss@h/d").render_as_string(hide_password=False)
    assert migrate.config(url).get_main_option("sqlalchemy.url") == url
