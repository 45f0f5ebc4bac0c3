"""Upgrades: by many processes at once, with the release before still writing, wholly or not at all, never backwards."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, inspect, select, text
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError

from core.db import Database
from models import lifecycle, migrate, schema
from models.tables import metadata

NEWER = "29990101_01"
NOW = "2026-11-24 10:00:00"

# What the releases before this one write: one row of each table, in the columns it had when it was made.
WRITTEN_BEFORE = {
    "20261124_01": (
        f"INSERT INTO project (id, name, created_at) VALUES ('prj_1', 'default', '{NOW}')",
        "INSERT INTO worker (id, host, pid, job_id, started_at, seen_at) "
        f"VALUES ('wrk_1', 'h', 1, NULL, '{NOW}', '{NOW}')",
        "INSERT INTO api_key (id, project_id, name, digest, created_at, revoked_at) "
        f"VALUES ('key_1', 'prj_1', 'first', 'd', '{NOW}', NULL)",
        "INSERT INTO dataset (id, project_id, name, builtin, format, storage_key, bytes, sha256, facts, report, "
        f"created_at) VALUES ('ds_1', 'prj_1', 'd', NULL, 'csv', 'k', 1, 's', '{{}}', '{{}}', '{NOW}')",
        "INSERT INTO job (id, project_id, name, status, conditions, spec, resolved, labels, dataset_id, created_at, "
        "version, attempt, lost_attempts, next_run_at, event_seq) VALUES "
        f"('job_1', 'prj_1', NULL, 'queued', '[]', '{{}}', '{{}}', '{{}}', 'ds_1', '{NOW}', 1, 0, 0, '{NOW}', 1)",
        "INSERT INTO artifact (job_id, name, kind, storage_key, bytes, sha256, created_at) "
        f"VALUES ('job_1', 'a', 'weights', 'k', 1, 's', '{NOW}')",
        "INSERT INTO idempotency (project_id, key, body_sha256, job_id, created_at) "
        f"VALUES ('prj_1', 'k', 's', 'job_1', '{NOW}')",
        "INSERT INTO job_event (job_id, seq, type, level, message, data, attempt, created_at) "
        f"VALUES ('job_1', 1, 'status', 'info', 'm', '{{}}', 0, '{NOW}')",
        "INSERT INTO job_metric (job_id, attempt, name, step, value) VALUES ('job_1', 1, 'loss', 1, 0.5)",
        "INSERT INTO model (id, project_id, job_id, name, role, config, weights_key, bytes, sha256, accuracy, "
        f"created_at) VALUES ('mdl_1', 'prj_1', 'job_1', 'm', 'student', '{{}}', 'k', 1, 's', 0.9, '{NOW}')",
    ),
    "20261124_02": (
        "INSERT INTO webhook_delivery (id, job_id, project_id, status, attempts, next_at, created_at) "
        f"VALUES ('evt_1', 'job_1', 'prj_1', 'pending', 0, '{NOW}', '{NOW}')",
    ),
    "20261124_04": (
        "INSERT INTO teacher_output (id, project_id, key, status, dataset_id, teacher, job_id, attempt, part, views, "
        "rows, bytes, storage_key, hits, created_at, last_used_at) VALUES ('out_1', 'prj_1', 'k', 'ready', 'ds_1', "
        f"'mlp', 'job_1', 1, 'train', 1, 1, 1, 'k', 0, '{NOW}', '{NOW}')",
        "INSERT INTO teacher_output_use (output_id, job_id) VALUES ('out_1', 'job_1')",
    ),
}


@pytest.fixture(params=["sqlite", "postgres"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database without any table."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'empty.db'}"
    url: str = request.getfixturevalue("postgres_url")
    command.downgrade(migrate.config(url), "base")
    return url


def run(url: str, statements: Any) -> None:
    engine = create_engine(url)
    try:
        with engine.begin() as connection:
            for statement in statements:
                connection.execute(text(statement))
    finally:
        engine.dispose()


def history() -> list[str]:
    """All revisions, the oldest first."""
    script = ScriptDirectory.from_config(migrate.config("sqlite://"))
    return [revision.revision for revision in script.walk_revisions()][::-1]


def columns(url: str) -> dict[str, dict[str, Any]]:
    engine = create_engine(url)
    inspector = inspect(engine)
    found = {table: {c["name"]: c for c in inspector.get_columns(table)} for table in inspector.get_table_names()}
    engine.dispose()
    return found


def test_what_this_release_knows_is_what_alembic_knows() -> None:
    assert schema.known() == set(history())
    assert schema.head() == history()[-1] == migrate.head()


def test_what_the_release_before_writes_fits_into_the_new_tables(database_url: str) -> None:
    for statements in WRITTEN_BEFORE.values():
        run(database_url, statements)
    database = Database(database_url)
    with database.read() as session:
        for mapper in metadata.tables.values():
            session.execute(select(mapper)).all()
    database.close()


def test_a_database_full_of_rows_is_upgraded_step_by_step(empty_url: str) -> None:
    for revision in history():
        command.upgrade(migrate.config(empty_url), revision)
        run(empty_url, WRITTEN_BEFORE.get(revision, ()))
    engine = create_engine(empty_url)
    with engine.connect() as connection:
        for table in ("job", "artifact", "model", "job_event", "teacher_output_use", "webhook_delivery"):
            assert connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one() == 1, table
    engine.dispose()


def test_no_step_takes_from_the_release_before_what_it_needs(empty_url: str) -> None:
    """Of two releases that follow one another both may run: a new column has a default or may be empty, and none of
    the old ones goes, or must be filled from now on."""
    command.upgrade(migrate.config(empty_url), history()[0])
    before = columns(empty_url)
    for revision in history()[1:]:
        command.upgrade(migrate.config(empty_url), revision)
        after = columns(empty_url)
        for table, old in before.items():
            new = after[table]
            assert set(old) <= set(new), (revision, table)
            for name, column in new.items():
                filled = column["nullable"] or column["default"] is not None
                assert filled or (name in old and not old[name]["nullable"]), (revision, table, name)
        before = after


def test_a_pausing_job_that_nobody_holds_gets_a_lease_that_is_over_and_none_can_come_again(empty_url: str) -> None:
    command.upgrade(migrate.config(empty_url), "20261124_13")
    for statements in WRITTEN_BEFORE.values():
        run(empty_url, statements)
    run(empty_url, ["UPDATE job SET status = 'pausing', attempt = 1"])
    command.upgrade(migrate.config(empty_url), "head")
    database = Database(empty_url)
    with database.write() as session:
        assert lifecycle.expired(session) == [("job_1", 1)]
        assert lifecycle.take_back(session, "job_1", 1, limit=3, retry_seconds=1)
    with database.read() as session:
        assert session.execute(text("SELECT status FROM job")).scalar_one() == "paused"
    database.close()
    for statement in ("status = 'pausing'", "status = 'running'"):
        with pytest.raises(IntegrityError, match="active_has_lease"):
            run(empty_url, [f"UPDATE job SET {statement}"])
    run(empty_url, [f"UPDATE job SET status = 'pausing', lease_until = '{NOW}'"])
    with pytest.raises(IntegrityError, match="active_has_lease"):
        run(empty_url, ["UPDATE job SET lease_until = NULL"])
    copied = WRITTEN_BEFORE["20261124_01"][4].replace("job_1", "job_2").replace("'queued'", "'pausing'")
    with pytest.raises(IntegrityError, match="active_has_lease"):
        run(empty_url, [copied])
    command.downgrade(migrate.config(empty_url), "20261124_13")
    run(empty_url, [copied])


def test_many_processes_migrate_at_once_and_all_are_content(empty_url: str) -> None:
    command_line = [sys.executable, "-m", "models.migrate"]
    env = os.environ | {"STILLHOUSE_DATABASE_URL": empty_url}
    together = [subprocess.Popen(command_line, env=env, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    said = [process.communicate(timeout=120)[1] for process in together]
    assert [process.returncode for process in together] == [0] * 4, said
    command.check(migrate.config(empty_url))


@pytest.fixture
def broken_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two more migrations: the first works, the second fails half-way."""
    folder = tmp_path / "migrations"
    shutil.copytree(schema.VERSIONS.parent, folder)
    step = "revision = '{}'\ndown_revision = '{}'\nimport sqlalchemy as sa\nfrom alembic import op\n"
    step += "def upgrade():\n    op.create_table('{}', sa.Column('id', sa.Integer(), primary_key=True))\n"
    first = step.format("20990101_01", schema.head(), "first_new")
    second = step.format("20990101_02", "20990101_01", "second_new") + "    op.execute('SELECT nonsense')\n"
    (folder / "versions/20990101_01_works.py").write_text(first)
    (folder / "versions/20990101_02_fails.py").write_text(second)
    monkeypatch.setattr(migrate, "_SCRIPTS", folder)
    yield
    monkeypatch.undo()


def test_a_migration_that_fails_leaves_everything_as_it_was(database_url: str, broken_release: None) -> None:
    before = set(columns(database_url))
    with pytest.raises((OperationalError, ProgrammingError)):
        migrate.upgrade(database_url)
    assert set(columns(database_url)) == before
    database = Database(database_url)
    assert migrate.current(database) == schema.head()
    database.close()


@pytest.fixture
def newer_url(database_url: str) -> str:
    """A database that a later release has migrated."""
    run(database_url, [f"UPDATE alembic_version SET version_num = '{NEWER}'"])
    return database_url


@pytest.mark.parametrize(
    "module",
    [
        "api",
        "worker",
        "worker.reconciler",
        "worker.health",
        "models.migrate",
        "api.keys list",
        "api.keys create --name x",
        "operate.fsck",
        "operate.backup nowhere",
    ],
)
def test_a_newer_database_is_refused_by_every_process(newer_url: str, module: str, tmp_path: Path) -> None:
    env = os.environ | {"STILLHOUSE_DATABASE_URL": newer_url, "STILLHOUSE_DATA_DIR": str(tmp_path / "data")}
    done = subprocess.run([sys.executable, "-m", *module.split()], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == (2 if module.startswith("operate") else 1), done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert f"at revision {NEWER}" in last
    assert "newer release" in last
    assert "Traceback" not in done.stderr


def test_a_newer_database_is_not_migrated(newer_url: str) -> None:
    with pytest.raises(schema.DatabaseIsNewer, match=NEWER):
        migrate.upgrade(newer_url)


def test_only_a_database_that_lacks_something_is_behind() -> None:
    assert schema.is_behind(None)
    assert schema.is_behind(history()[0])
    assert not schema.is_behind(schema.head())
    assert not schema.is_behind(NEWER)  # a newer release is being started beside this one, which goes on
