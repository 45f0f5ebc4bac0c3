"""One live service for all hostile inputs: `python -m api` as a process, and a look at what it holds."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import psutil
from sqlalchemy import func, select

from core.db import Database
from models import keys
from models.tables import metadata

MEBIBYTE = 1024**2
LIMITS = {
    "MAX_UPLOAD_BYTES": 8_000_000,
    "MAX_EXPANDED_BYTES": 64_000_000,
    "MAX_INGEST_SECONDS": 60,
    "MAX_REQUESTS_PER_MINUTE": 1_000_000,
    "MAX_UPLOADS_PER_HOUR": 1_000_000,
    "MAX_FAILED_KEYS_PER_MINUTE": 1_000_000,
}


@dataclass(frozen=True, kw_only=True)
class Service:
    """A running service."""

    url: str
    key: str
    folder: Path
    database: Database
    process: psutil.Process

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def client(self) -> httpx2.Client:
        """A caller with a key that may do everything."""
        return httpx2.Client(base_url=self.url, headers={"Authorization": f"Bearer {self.key}"}, timeout=120)

    def rows(self) -> dict[str, int]:
        """How many rows each table has, but for the log of what was refused."""
        with self.database.read() as session:
            return {
                name: session.execute(select(func.count()).select_from(table)).scalar_one()
                for name, table in metadata.tables.items()
                if name != "audit"
            }

    def files(self) -> list[str]:
        """All files, and what lies in the working and temporary folders."""
        home, temporary = self.folder / "data", self.folder / "tmp"
        kept = [path for path in home.rglob("*") if path.is_file() or path.parent.name == "uploads"]
        # A database file grows and shrinks as it likes.
        return sorted(str(path) for path in [*kept, *temporary.rglob("*")] if not path.name.startswith("record.db"))

    def children(self) -> list[psutil.Process]:
        """Processes it has started and that are not over."""
        return self.process.children(recursive=True)

    def peak_bytes(self) -> int:
        """The most memory it ever had resident."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024


@contextmanager
def serving(folder: Path, database_url: str, broker_url: str) -> Iterator[Service]:
    """A service on a migrated database, until the block ends. Its log is `folder`/log."""
    (folder / "tmp").mkdir(parents=True)
    environment = os.environ | {
        "STILLHOUSE_DATA_DIR": str(folder / "data"),
        "STILLHOUSE_DATABASE_URL": database_url,
        "STILLHOUSE_BROKER_URL": broker_url,
        "STILLHOUSE_QUEUE": f"hostile-{folder.name}",
        "STILLHOUSE_LOG_LEVEL": "warning",
        "TMPDIR": str(folder / "tmp"),
        **{f"STILLHOUSE_LIMITS__{name}": str(value) for name, value in LIMITS.items()},
    }
    database = Database(database_url)
    with database.write() as session:
        key = keys.issue(session, keys.project_named(session, "default").id, name="test", scope="admin")
    with socket.socket() as listener, (folder / "log").open("wb") as log:
        listener.bind(("127.0.0.1", 0))
        listener.listen(100)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        command = [sys.executable, "-m", "api", "--fd", str(listener.fileno())]
        child = subprocess.Popen(command, env=environment, pass_fds=[listener.fileno()], stdout=log, stderr=log)
    try:
        # The socket listens before the process does: the first request waits and is not refused.
        assert httpx2.get(f"{url}/healthz", timeout=60).status_code == 200
        yield Service(url=url, key=key, folder=folder, database=database, process=psutil.Process(child.pid))
    finally:
        child.terminate()
        child.wait(30)
        database.close()
