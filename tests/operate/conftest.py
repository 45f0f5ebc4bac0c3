"""A project with files, on each database."""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import create_engine, make_url

from core.db import Database
from core.settings import Settings
from tests.house import House
from tests.shelf import Shelf
from tests.worker.hooked import Hooked


@pytest.fixture
def shelf(settings: Settings, database: Database, project: str, api_key: str, tmp_path: Path) -> Shelf:
    """Nothing on it yet."""
    house = House(url="", key=api_key, project=project, settings=settings, database=database)
    return Shelf(house, Hooked(database, project), tmp_path)


@pytest.fixture
def second_postgres_url(postgres_server: str) -> Iterator[str]:
    """An empty PostgreSQL database."""
    name = f"second_{uuid4().hex}"
    engine = create_engine(postgres_server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    yield make_url(postgres_server).set(database=name).render_as_string(hide_password=False)
    with engine.connect() as connection:
        connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
    engine.dispose()


@pytest.fixture
def sqlite_elsewhere(tmp_path: Path) -> dict[str, str]:
    """Variables of another, empty service."""
    folder = tmp_path / "elsewhere"
    return {"STILLHOUSE_DATA_DIR": str(folder), "STILLHOUSE_DATABASE_URL": f"sqlite:///{folder / 'stillhouse.db'}"}
