"""A project with files, on each database and each kind of storage."""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import create_engine, make_url

from core.db import Database
from core.settings import Settings
from tests.house import House
from tests.shelf import PLACES, Shelf
from tests.worker.hooked import Hooked


@pytest.fixture(params=PLACES, ids="-".join)
def place(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Runs the test once on each."""
    found: tuple[str, str] = request.param
    return found


@pytest.fixture
def database_kind(place: tuple[str, str]) -> str:
    return place[0]


@pytest.fixture
def storage_kind(place: tuple[str, str]) -> str:
    return place[1]


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
def sqlite_elsewhere(tmp_path: Path, storage_settings: dict[str, str]) -> dict[str, str]:
    """Variables of another, empty service, with the same kind of storage."""
    folder = tmp_path / "elsewhere"
    env = {"STILLHOUSE_DATA_DIR": str(folder), "STILLHOUSE_DATABASE_URL": f"sqlite:///{folder / 'stillhouse.db'}"}
    if storage_settings:
        env["STILLHOUSE_STORAGE_URL"] = storage_settings["storage_url"] + "-elsewhere"
    return env
