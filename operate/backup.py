"""`python -m operate.backup TARGET`: database and storage as they are at one moment, taken while the service runs.

Rows are read first, in one transaction, and then the files they name are copied: a file comes before its row, never
changes, and is purged only when no backup is under way. What can be made again (teacher outputs, checkpoints) may go
meanwhile; then its row is left out of the backup too. So every row in a backup has its file.

Exit status: 0 done · 1 done, but files were missing or damaged already · 2 not done.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

import stillhouse
from core.db import Database
from core.settings import Settings, WrongSettings
from core.storage import Storage, make_storage
from models import holds, schema
from models.stored_files import KEY_COLUMNS
from operate import archive, rows
from operate.archive import Short, Writer
from operate.opening import Refused, answer, complain, opened
from stillhouse.spec.errors import NotFound, StillhouseError

_HOLD_SECONDS = 600.0
SECRET = "secret.key"  # noqa: S105 - its name


@dataclass(frozen=True, kw_only=True)
class Taken:
    """What a backup holds."""

    rows: dict[str, int]
    files: int
    bytes: int
    wrong: tuple[str, ...]
    """Files that were missing or damaged already."""


def take(database: Database, storage: Storage, settings: Settings, target: Path) -> Taken:
    """Write a backup to `target`, a folder or a .tar. Raises Refused, and what database and storage raise."""
    with archive.writing(target) as writer, tempfile.TemporaryDirectory(prefix="stillhouse-backup-") as scratch:
        folder, hold = Path(scratch), _Hold(database)
        try:
            rows.dump(database.engine, folder)
            copied = _Copied(storage, writer, hold)
            for file in _named(folder):
                copied.copy(file)
        finally:
            hold.release()
        counts = _write_rows(writer, folder, copied.gone)
        if settings.secret_key is None and (key := settings.data_dir / SECRET).is_file():
            writer.add_path(SECRET, key)
        facts = {
            "stillhouse": stillhouse.__version__,
            "revision": schema.head(),
            "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "rows": counts,
            "wrong": sorted(copied.wrong),
        }
        writer.finish(facts)
    size = sum(facts["bytes"] for facts in writer.files.values())
    return Taken(rows=counts, files=copied.files, bytes=size, wrong=tuple(sorted(copied.wrong)))


@dataclass(frozen=True, kw_only=True)
class _File:
    key: str
    sha256: str | None
    expendable: bool
    known_lost: bool


class _Hold:
    """Keeps the sweep from purging while files are copied."""

    def __init__(self, database: Database) -> None:
        self._database = database
        with database.write() as session:
            self._id = holds.take(session, "backup", seconds=_HOLD_SECONDS)
        self._renew_at = time.monotonic() + _HOLD_SECONDS / 10

    def keep(self) -> None:
        """Renew it now and then. Raises Refused when it has lapsed."""
        if time.monotonic() < self._renew_at:
            return
        with self._database.write() as session:
            if not holds.renew(session, self._id, seconds=_HOLD_SECONDS):
                raise Refused("The backup stood still too long, and files may have been purged: take it again.")
        self._renew_at = time.monotonic() + _HOLD_SECONDS / 10

    def release(self) -> None:
        with self._database.write() as session:
            holds.release(session, self._id)


class _Copied:
    """Copies files, each once."""

    def __init__(self, storage: Storage, writer: Writer, hold: _Hold) -> None:
        self._storage, self._writer, self._hold = storage, writer, hold
        self.gone: set[str] = set()
        """Of rows that are left out."""
        self.wrong: set[str] = set()
        self.files = 0

    def copy(self, file: _File) -> None:
        name = f"files/{file.key}"
        if name in self._writer.files or file.key in self.gone | self.wrong:
            return
        size = self._storage.size(file.key)
        try:
            found = None if size is None else self._writer.add(name, size, self._chunks(file.key))
        except NotFound:
            found = None
        except Short:
            raise Refused(f"The file {file.key} changed while it was copied: run `stillhouse fsck --deep`.") from None
        if found is None and file.expendable:
            self.gone.add(file.key)
        elif found is None or file.sha256 not in (None, found):
            self.wrong |= set() if file.known_lost else {file.key}
        self.files += found is not None

    def _chunks(self, key: str) -> Iterator[bytes]:
        for chunk in self._storage.read(key):
            self._hold.keep()
            yield chunk


def _named(folder: Path) -> Iterator[_File]:
    """Files the dumped rows need."""
    purged = {row["id"] for row in rows.lines_of(folder / "job.jsonl") if row["purging_at"]}
    for known in KEY_COLUMNS:
        for row in rows.lines_of(folder / f"{known.table.__tablename__}.jsonl"):
            key, job = row[known.key.key], row.get("job_id")
            goes_with_its_job = known.table.__tablename__ not in ("model", "teacher_output") and job in purged
            if not key or row.get("purging_at") or goes_with_its_job:
                continue
            yield _File(
                key=key,
                sha256=None if known.sha256 is None else row[known.sha256.key],
                expendable=known.when_lost == "drop",
                known_lost=bool(row.get("missing_at")),
            )


def _write_rows(writer: Writer, folder: Path, gone: set[str]) -> dict[str, int]:
    """Into the backup, without those whose files went meanwhile, and without what refers to these."""
    keys = {known.table.__tablename__: known.key.key for known in KEY_COLUMNS if known.when_lost == "drop"}
    left_out: dict[str, set[Any]] = {}
    counts = {}
    for made in rows.tables():
        path, kept = folder / f"{made.name}.jsonl", folder / f"{made.name}.kept"
        references = [
            (key.parent.name, left_out[t]) for key in made.foreign_keys if (t := key.column.table.name) in left_out
        ]
        with kept.open("w", encoding="utf-8") as file:
            counts[made.name] = 0
            for row in rows.lines_of(path):
                lost = made.name in keys and row[keys[made.name]] in gone
                if lost or any(row[name] in ids for name, ids in references):
                    if "id" in row:
                        left_out.setdefault(made.name, set()).add(row["id"])
                    continue
                file.write(rows.line_of(row))
                counts[made.name] += 1
        writer.add_path(f"rows/{made.name}.jsonl", kept)
    return counts


def main(arguments: Sequence[str] | None = None) -> int:
    """Take a backup."""
    args = _parser().parse_args(arguments)
    try:
        settings = Settings()
        database = opened(settings)
        try:
            taken = take(database, make_storage(settings), settings, args.target)
        finally:
            database.close()
    except (Refused, WrongSettings) as error:
        return complain(str(error))
    except StillhouseError as error:
        return complain(error.detail)
    except (SQLAlchemyError, OSError) as error:
        return complain(f"The backup was not taken: {type(error).__name__}: {str(error).splitlines()[0]}")
    total = sum(taken.rows.values())
    lines = [f"{args.target}: {total:,} rows, {taken.files:,} files, {taken.bytes:,} bytes."]
    lines += [f"missing or damaged: {key}" for key in taken.wrong]
    value = {"target": str(args.target), "rows": total, "files": taken.files, "bytes": taken.bytes}
    answer(value | {"wrong": list(taken.wrong)}, lines, as_json=args.json)
    return 1 if taken.wrong else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="stillhouse backup", description=(__doc__ or "").partition("\n\n")[2])
    parser.add_argument("target", type=Path, help="a new folder, or a new file that ends in .tar")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    return parser


if __name__ == "__main__":
    sys.exit(main())
