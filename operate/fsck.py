"""`python -m operate.fsck`: does every row have its file, and every file a row? Safe while the service runs.

Files are listed first, rows read then: a file comes before its row and goes before it too (`models.purge`), or after
it. What looks wrong is looked at once more before it is called wrong.

Exit status: 0 nothing is wrong, or all of it was mended · 1 something is wrong · 2 it could not be looked at.
"""

import argparse
import hashlib
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import delete, select, update
from sqlalchemy.exc import SQLAlchemyError

from core.db import Database
from core.settings import Settings, WrongSettings
from core.storage import Entry, Storage, make_storage
from models import stored_files
from models.base import db_now
from models.stored_files import NamedFile
from models.tables import metadata
from operate.opening import Refused, answer, complain, opened
from stillhouse.spec.errors import NotFound, StillhouseError

GRACE = timedelta(hours=1)
"""A file this young may belong to a row that is about to be committed, a half-written one to a process that lives."""
QUARANTINE = "quarantine/"

Kind = Literal["orphan", "missing", "damaged", "found", "temporary"]
MENDING: dict[Kind, str] = {
    "orphan": f"moved to {QUARANTINE}",
    "missing": "the row says so now, or is gone when it can be made again",
    "damaged": "the row says so now, or is gone when it can be made again",
    "found": "the row no longer says that it is lost",
    "temporary": "removed",
}
"""What `--repair` does about each."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is wrong."""

    kind: Kind
    key: str
    what: str
    """In words."""
    mended: bool = False


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a check found."""

    files: int
    rows: int
    lost: int
    """Rows that say already that their file is lost."""
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        """Nothing is wrong now."""
        return all(problem.mended for problem in self.problems)


def check(
    database: Database,
    storage: Storage,
    work: Path,
    *,
    deep: bool = False,
    repair: bool = False,
    all_lost: bool = False,
) -> Found:
    """Compare rows and files; `deep`: read every file and compare its digest.

    Raises what database and storage do, and Refused for a repair where no file on record is there, unless `all_lost`.
    """
    young = datetime.now(UTC) - GRACE
    listed = {entry.key: entry for entry in storage.entries() if not entry.key.startswith(QUARANTINE)}
    with database.read() as session:
        rows = list(stored_files.named(session))
    temporary = [entry for entry in listed.values() if entry.temporary]
    whole = {key: entry for key, entry in listed.items() if not entry.temporary}
    if repair and not all_lost:
        _refuse_another_storage(rows, whole)
    mend = _Mender(database, storage, repair)
    problems = [
        *(mend.orphan(entry) for entry in _orphans(database, whole, rows, young)),
        *(mend.row(kind, file, what) for kind, file, what in _wrong_rows(database, storage, whole, rows, deep)),
        *(mend.temporary(entry) for entry in temporary if entry.modified < young),
        *(mend.leftover(path) for path in _leftovers(work, young)),
    ]
    lost = sum(file.missing for file in rows)
    return Found(files=len(whole), rows=len(rows), lost=lost, problems=tuple(problems))


def _refuse_another_storage(rows: Iterable[NamedFile], files: dict[str, Entry]) -> None:
    """A disk that is not mounted, or another service's bucket, must not cost every row its file."""
    keys = {file.key for file in rows if file.kept and not file.missing}
    if keys and keys.isdisjoint(files):
        raise Refused(
            f"Of {len(keys)} files on record none is in the storage, so nothing was mended. Is its disk mounted, and "
            "STILLHOUSE_STORAGE_URL right? If all of them are really lost: --repair --all-lost"
        )


def _orphans(
    database: Database, files: dict[str, Entry], rows: Iterable[NamedFile], young: datetime
) -> Iterator[Entry]:
    """Files no row names, not even one that is being purged."""
    named = {file.key for file in rows}
    for key, entry in sorted(files.items()):
        if key not in named and entry.modified < young:
            with database.read() as session:
                if not stored_files.needed(session, [key]):
                    yield entry


def _wrong_rows(
    database: Database, storage: Storage, files: dict[str, Entry], rows: Iterable[NamedFile], deep: bool
) -> Iterator[tuple[Kind, NamedFile, str]]:
    """Rows that need a file which is not what they say."""
    digests: dict[str, str | None] = {}
    for file in sorted(rows, key=lambda file: (file.key, file.what)):
        if not file.kept:
            continue
        size = files[file.key].bytes if file.key in files else storage.size(file.key)
        if size is None:
            if not file.missing and _still_needed(database, file):
                yield "missing", file, f"{file.what}: its file is gone"
            continue
        wrong = None if file.bytes in (None, size) else f"its file has {size:,} bytes, not {file.bytes:,}"
        if wrong is None and file.sha256 is not None and (deep or file.missing):
            if file.key not in digests:
                digests[file.key] = _digest(storage, file.key)
            wrong = None if digests[file.key] in (None, file.sha256) else "the bytes of its file have changed"
        if wrong is None and file.missing:
            yield "found", file, f"{file.what}: its file, said to be lost, is there"
        elif wrong is not None and not file.missing and _still_needed(database, file):
            yield "damaged", file, f"{file.what}: {wrong}"


def _still_needed(database: Database, file: NamedFile) -> bool:
    with database.read() as session:
        return bool(stored_files.needed(session, [file.key]))


def _digest(storage: Storage, key: str) -> str | None:
    digest = hashlib.sha256()
    try:
        for chunk in storage.read(key):
            digest.update(chunk)
    except NotFound:
        return None
    return digest.hexdigest()


def _leftovers(work: Path, young: datetime) -> Iterator[Path]:
    """Half-written copies in the cache of this machine."""
    for path in sorted((work / "cache").rglob("*.part")):
        if datetime.fromtimestamp(path.stat().st_mtime, UTC) < young:
            yield path


class _Mender:
    """Mends, when it was asked to, and reports."""

    def __init__(self, database: Database, storage: Storage, repair: bool) -> None:
        self._database, self._storage, self._repair = database, storage, repair

    def orphan(self, entry: Entry) -> Problem:
        if self._repair:
            self._storage.move(entry.key, QUARANTINE + entry.key)
        what = f"no row names this file of {entry.bytes:,} bytes"
        return Problem(kind="orphan", key=entry.key, what=what, mended=self._repair)

    def temporary(self, entry: Entry) -> Problem:
        if self._repair:
            self._storage.delete(entry.key)
        return Problem(kind="temporary", key=entry.key, what="left half-written", mended=self._repair)

    def leftover(self, path: Path) -> Problem:
        if self._repair:
            path.unlink(missing_ok=True)
        return Problem(kind="temporary", key=str(path), what="left half-written in the cache", mended=self._repair)

    def row(self, kind: Kind, file: NamedFile, what: str) -> Problem:
        if self._repair:
            self._settle(kind, file)
        return Problem(kind=kind, key=file.key, what=what, mended=self._repair)

    def _settle(self, kind: Kind, file: NamedFile) -> None:
        table = file.column.table
        mine = [column == value for column, value in zip(table.__mapper__.primary_key, file.row_id, strict=True)]
        with self._database.write() as session:
            if file.column.when_lost == "mark":
                at = None if kind == "found" else db_now(session)
                session.execute(update(table).where(*mine).values(missing_at=at))
                return
            for other in metadata.tables.values():
                for key in other.foreign_keys:
                    if key.column.table is table.__table__:
                        session.execute(delete(other).where(key.parent.in_(select(key.column).where(*mine))))
            session.execute(delete(table).where(*mine))
        self._storage.delete(file.key)


def main(arguments: Sequence[str] | None = None) -> int:
    """Check, and print what was found."""
    args = _parser().parse_args(arguments)
    try:
        settings = Settings()
        database = opened(settings)
        try:
            storage = make_storage(settings)
            found = check(
                database, storage, settings.work_dir, deep=args.deep, repair=args.repair, all_lost=args.all_lost
            )
        finally:
            database.close()
    except (Refused, WrongSettings) as error:
        return complain(str(error))
    except StillhouseError as error:
        return complain(error.detail)
    except SQLAlchemyError as error:
        return complain(f"The database does not answer: {type(error).__name__}.")
    answer(_as_json(found), list(_lines(found)), as_json=args.json)
    return 0 if found.ok else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="stillhouse fsck", description=(__doc__ or "").partition("\n\n")[2])
    parser.add_argument("--deep", action="store_true", help="read every file and compare its digest")
    parser.add_argument("--repair", action="store_true", help="mend what is wrong")
    parser.add_argument("--all-lost", action="store_true", help="with --repair: mend also when no file is there at all")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    return parser


def _as_json(found: Found) -> dict[str, Any]:
    counts = {"files": found.files, "rows": found.rows, "lost": found.lost}
    return {"ok": found.ok, **counts, "problems": [asdict(problem) for problem in found.problems]}


def _lines(found: Found) -> Iterator[str]:
    for problem in found.problems:
        mended = f" ({MENDING[problem.kind]})" if problem.mended else ""
        yield f"{problem.kind:<10}{problem.key}  {problem.what}{mended}"
    lost = f", {found.lost} known to be lost" if found.lost else ""
    summary = f"{found.files} files, {found.rows} rows that name one{lost}: "
    open_ = sum(not problem.mended for problem in found.problems)
    if open_:
        yield f"{summary}{open_} problems. `--repair` mends them."
    else:
        yield summary + (f"{len(found.problems)} problems, all mended." if found.problems else "nothing is wrong.")


if __name__ == "__main__":
    sys.exit(main())
