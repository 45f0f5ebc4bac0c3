"""The API on real parts: in this process for plain requests, behind a real socket for streams."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import func, select

from api.__main__ import server_config
from api.main import create_app
from core.db import Database
from core.ingest_child import ingest
from core.settings import Settings
from core.storage import make_storage, sha256_of
from models import datasets, keys
from models.tables import metadata
from stillhouse.spec.ids import new_id
from stillhouse.spec.upload import IngestRequest, StoredUpload
from tests.house import SPEC, House, serve

Traces = Callable[[], tuple[dict[str, int], list[str]]]


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    return create_app(settings)


@pytest.fixture
def anyone(app: FastAPI) -> Iterator[TestClient]:
    """A caller without a key."""
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def http(anyone: TestClient, api_key: str) -> TestClient:
    """A caller with the project's key."""
    anyone.headers["Authorization"] = f"Bearer {api_key}"
    return anyone


@pytest.fixture
def live(app: FastAPI, settings: Settings) -> Iterator[str]:
    """Address of the same app behind uvicorn, as `python -m api` runs it."""
    with serve(server_config(settings, app)) as url:
        yield url


@pytest.fixture
def house(settings: Settings, database: Database, project: str, api_key: str) -> House:
    """The hand that plays the worker."""
    return House(url="", key=api_key, project=project, settings=settings, database=database)


@pytest.fixture
def other_key(database: Database) -> str:
    """A key of another project."""
    with database.write() as session:
        return keys.issue(session, keys.project_named(session, "other").id, name="other", scope="admin")


@pytest.fixture(scope="session")
def digits_file(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, StoredUpload]:
    """The stored digits, read once."""
    path = tmp_path_factory.mktemp("digits") / "digits.safetensors"
    return path, ingest(IngestRequest(builtin="digits", output=str(path)))


@pytest.fixture
def digits(settings: Settings, database: Database, project: str, digits_file: tuple[Path, StoredUpload]) -> str:
    """Id of the digits, as the project has them after its first job."""
    path, stored = digits_file
    dataset_id = new_id("ds")
    key = f"projects/{project}/datasets/{dataset_id}.safetensors"
    make_storage(settings).put(key, path)
    with database.write() as session:
        datasets.add(
            session,
            project,
            id=dataset_id,
            name="digits",
            builtin="digits",
            format="builtin",
            storage_key=key,
            bytes=path.stat().st_size,
            sha256=sha256_of(path),
            stored=stored.dataset,
        )
    return dataset_id


@pytest.fixture
def post_job(http: TestClient, digits: str) -> Callable[..., str]:
    """Submit a job; returns its id."""

    def post(**changes: Any) -> str:
        answer = http.post("/v1/jobs", json=SPEC | changes)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    return post


@pytest.fixture
def traces(settings: Settings, database: Database) -> Traces:
    """Counts of all rows, and names of all files: equal before and after a call that must leave nothing."""

    def look() -> tuple[dict[str, int], list[str]]:
        with database.read() as session:
            rows = {
                name: session.execute(select(func.count()).select_from(table)).scalar_one()
                for name, table in metadata.tables.items()
                if name != "audit"  # what was refused is written down there
            }
        files = [str(path) for path in settings.data_dir.rglob("*") if path.is_file() or path.parent.name == "uploads"]
        return rows, sorted(files)

    return look
