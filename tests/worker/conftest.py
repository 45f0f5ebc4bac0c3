"""A service of real processes, on each database."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from core.db import Database
from core.ingest_child import ingest
from core.settings import Settings
from stillhouse.spec import StoredDataset
from stillhouse.spec.upload import IngestRequest
from tests.worker.service import Service


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, StoredDataset]:
    """The stored digits."""
    path = tmp_path_factory.mktemp("digits") / "digits.safetensors"
    stored = ingest(IngestRequest(builtin="digits", output=str(path)))
    return path, StoredDataset(facts=stored.dataset.facts, report=stored.dataset.report)


@pytest.fixture
def service(
    settings: Settings, database: Database, project: str, tmp_path: Path, digits: tuple[Path, StoredDataset]
) -> Iterator[Service]:
    """A service without workers yet."""
    made = Service(settings, database, project, tmp_path, digits)
    yield made
    made.stop()
