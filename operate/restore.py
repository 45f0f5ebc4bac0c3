"""`python -m operate.restore SOURCE`: a backup into an empty database and an empty storage, of any kind.

Everything is verified before anything is written. Files come first, then all rows in one transaction, so that there is
never a row without its file. Jobs that were running wait for a worker again.

Exit status: 0 done · 2 not done.
"""

import argparse
import io
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from alembic import command
from sqlalchemy import inspect, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from core.db import Database
from core.settings import Settings, WrongSettings
from core.storage import Storage, make_storage
from models import lifecycle, migrate, schema
from models.job import JobRow
from models.lifecycle import Lease
from operate import rows
from operate.archive import Reader
from operate.backup import SECRET
from operate.opening import Refused, answer, complain
from stillhouse.spec.errors import StillhouseError
from stillhouse.spec.states import ACTIVE

_FILES = "files/"
HANDED_BACK = "The service was restored from a backup; the job goes back to the queue."


def restore(reader: Reader, settings: Settings) -> dict[str, int]:
    """Bring a backup back; returns the number of rows by table. Raises Refused, and what database and storage do."""
    if (revision := reader.manifest["revision"]) not in schema.known():
        raise Refused(f"The backup has revision {revision}, which this release does not know: use a newer one.")
    if wrong := reader.wrong():
        raise Refused(f"The backup is damaged: {', '.join(wrong[:5])} (files that are wrong: {len(wrong)}).")
    storage, url = make_storage(settings), settings.resolved_database_url
    _refuse_unless_empty(storage, url, settings)
    _put_files(reader, storage)
    _put_secret(reader, settings)
    command.upgrade(migrate.config(url), revision)
    database = Database(url)
    try:
        counts = _put_rows(reader, database)
        migrate.upgrade(url)
        with database.write() as session:
            _hand_back(session)
    finally:
        database.close()
    return counts


def _refuse_unless_empty(storage: Storage, url: str, settings: Settings) -> None:
    if next((entry for entry in storage.entries() if not entry.temporary), None) is not None:
        raise Refused("The storage is not empty. Name another: --data-dir NEW, or STILLHOUSE_STORAGE_URL.")
    if url.startswith("sqlite"):
        settings.data_dir.mkdir(parents=True, exist_ok=True)
    database = Database(url)
    try:
        with database.engine.connect() as connection:
            for name in set(inspect(connection).get_table_names()) - {"alembic_version"}:
                if connection.exec_driver_sql(f'SELECT 1 FROM "{name}" LIMIT 1').first() is not None:  # noqa: S608
                    raise Refused(
                        "The database is not empty. Name another: --data-dir NEW, or STILLHOUSE_DATABASE_URL."
                    )
    finally:
        database.close()


def _put_files(reader: Reader, storage: Storage) -> None:
    with tempfile.TemporaryDirectory(prefix="stillhouse-restore-") as scratch:
        for name in reader.manifest["files"]:
            if not name.startswith(_FILES):
                continue
            copy = Path(scratch) / "file"
            with reader.open(name) as source, copy.open("wb") as target:
                shutil.copyfileobj(source, target)
            storage.put(name.removeprefix(_FILES), copy)


def _put_secret(reader: Reader, settings: Settings) -> None:
    """The key that webhook secrets are sealed with, unless the operator gives it."""
    if SECRET not in reader.manifest["files"] or settings.secret_key is not None:
        return
    with reader.open(SECRET) as source:
        key = source.read()
    path = settings.data_dir / SECRET
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_file() and path.read_bytes() != key:
        raise Refused(f"{path} is another key than that of the backup: move it away first.")
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(key)


def _put_rows(reader: Reader, database: Database) -> dict[str, int]:
    with database.write() as session:
        connection = session.connection()
        rows.unhurried(connection)
        counts = {}
        for name in (made.name for made in rows.tables() if f"rows/{made.name}.jsonl" in reader.manifest["files"]):
            with reader.open(f"rows/{name}.jsonl") as file, io.TextIOWrapper(file, encoding="utf-8") as lines:
                counts[name] = rows.load(connection, name, lines)
    return counts


def _hand_back(session: Session) -> None:
    """No worker holds any of these jobs. Without this the reconciler would find it out, and count a lost attempt."""
    for row in session.scalars(select(JobRow).where(JobRow.status.in_(ACTIVE))):
        lease = Lease(job_id=row.id, worker_id=row.worker_id or "", attempt=row.attempt)
        if not lifecycle.cancelled(session, lease):
            lifecycle.hand_back(session, lease, HANDED_BACK)


def main(arguments: Sequence[str] | None = None) -> int:
    """Restore a backup."""
    args = _parser().parse_args(arguments)
    try:
        reader = Reader(args.source)
        try:
            counts = restore(reader, Settings())
        finally:
            reader.close()
    except (Refused, WrongSettings) as error:
        return complain(str(error))
    except StillhouseError as error:
        return complain(error.detail)
    except (SQLAlchemyError, OSError) as error:
        return complain(f"The backup was not restored: {type(error).__name__}: {str(error).splitlines()[0]}")
    files = sum(name.startswith(_FILES) for name in reader.manifest["files"])
    total = sum(counts.values())
    answer({"rows": total, "files": files}, [f"Restored {total:,} rows and {files:,} files."], as_json=args.json)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="stillhouse restore", description=(__doc__ or "").partition("\n\n")[2])
    parser.add_argument("source", type=Path, help="a folder or .tar that `stillhouse backup` made")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    return parser


if __name__ == "__main__":
    sys.exit(main())
