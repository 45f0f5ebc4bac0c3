"""Where uploads lie while they are read, and the step from there into storage and record: whole, or nothing of it."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from api.parts import Parts
from api.services import quotas
from core.settings import Settings
from stillhouse.spec.errors import Unavailable

Row = TypeVar("Row")


def keep(
    parts: Parts,
    project_id: str,
    key: str,
    file: Path,
    *,
    add: Callable[[Session], Row],
    find: Callable[[Session], Row | None],
) -> Row:
    """Store `file` under `key` and record it with `add`; `find` looks whether it is recorded.

    Raises QuotaExceeded, Unavailable and what the database raises; nothing is left then.
    """
    size = file.stat().st_size
    quotas.check_room(parts, project_id, size)  # before it is copied; for good below
    try:
        parts.storage.put(key, file)
        with parts.of(project_id).write() as session:
            quotas.take_room(parts, session, project_id, size)
            return add(session)
    except BaseException:
        _drop_unless_recorded(parts, project_id, key, find)
        raise


@contextmanager
def working_folder(settings: Settings) -> Iterator[Path]:
    """A folder for one upload, gone at the end; locked meanwhile, so that `sweep` leaves it alone."""
    home = _home(settings)
    with _locked(home, fcntl.LOCK_SH):
        folder = Path(tempfile.mkdtemp(dir=home))
        descriptor = os.open(folder, os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def sweep(settings: Settings) -> None:
    """Remove what uploads of a killed process left: the folders nobody holds any more."""
    home = _home(settings)
    with _locked(home, fcntl.LOCK_EX):
        for folder in home.iterdir():
            # A locked one belongs to a process that lives.
            with suppress(BlockingIOError, FileNotFoundError), _locked(folder, fcntl.LOCK_EX | fcntl.LOCK_NB):
                shutil.rmtree(folder, ignore_errors=True)


def _drop_unless_recorded(parts: Parts, project_id: str, key: str, find: Callable[[Session], Row | None]) -> None:
    """A commit whose answer got lost may have happened: then, or when nobody can say, the file stays."""
    try:
        with parts.of(project_id).read() as session:
            recorded = find(session) is not None
    except SQLAlchemyError:
        return
    if not recorded:
        with suppress(Unavailable):  # the caller learns of the first fault, not of this one
            parts.storage.delete(key)


def _home(settings: Settings) -> Path:
    home = settings.work_dir / "uploads"
    home.mkdir(parents=True, exist_ok=True)
    return home


@contextmanager
def _locked(folder: Path, kind: int) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, kind)
        yield
    finally:
        os.close(descriptor)
