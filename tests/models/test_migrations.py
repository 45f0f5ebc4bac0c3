"""The migrations make what the code expects, go back, and keep what is there. On both databases."""

import pytest
from alembic import command
from sqlalchemy import CheckConstraint, create_engine, inspect

from core.db import Database
from models import keys, migrate
from models.tables import metadata

FIRST = "20261124_01"


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest) -> str:
    """A migrated database."""
    return str(request.getfixturevalue(f"{request.param}_url"))


def test_a_migrated_database_is_what_the_tables_say(url: str) -> None:
    command.check(migrate.config(url))


def test_every_table_of_the_code_is_known_to_the_migrations(url: str) -> None:
    engine = create_engine(url)
    assert set(inspect(engine).get_table_names()) == {*metadata.tables, "alembic_version"}
    engine.dispose()


def test_the_checks_of_the_tables_are_in_the_database(url: str) -> None:
    """`alembic check` does not look at these."""
    engine = create_engine(url)
    there = {item["name"] for table in metadata.tables for item in inspect(engine).get_check_constraints(table)}
    engine.dispose()
    wanted = {
        str(item.name)
        for table in metadata.tables.values()
        for item in table.constraints
        if isinstance(item, CheckConstraint)
    }
    assert wanted <= there
    assert len(wanted) >= 4


def test_going_back_to_the_first_release_and_forth_again_keeps_the_rows(url: str) -> None:
    database = Database(url)
    with database.write() as session:
        project = keys.project_named(session, "kept")
        key = keys.issue(session, project.id, name="kept")
    database.close()
    command.downgrade(migrate.config(url), FIRST)
    assert migrate.current(database) == FIRST
    migrate.upgrade(url)
    assert migrate.current(database) == migrate.head() != FIRST
    with database.read() as session:
        assert keys.owner(session, key) == project.id
    database.close()
    command.check(migrate.config(url))
