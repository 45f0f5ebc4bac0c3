"""A project with files, on each database."""

from pathlib import Path

import pytest

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
