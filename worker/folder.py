"""The private folder of one attempt. Removed when the attempt ends; a dead worker's is removed by the next one."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class AttemptFolder:
    """Places of one attempt."""

    root: Path

    @property
    def output(self) -> Path:
        """Results, written by the trainer."""
        return self.root / "output"

    @property
    def teacher(self) -> Path:
        """A stored teacher's files."""
        return self.root / "teacher"

    @property
    def scratch(self) -> Path:
        """The trainer's temporary folder."""
        return self.root / "scratch"


@contextmanager
def attempt_folder(work_dir: Path, name: str) -> Iterator[AttemptFolder]:
    """A new folder under `work_dir`, locked while it is in use."""
    root = work_dir / "attempts" / name
    root.mkdir(parents=True, mode=0o700)
    folder = AttemptFolder(root)
    lock = os.open(root / ".lock", os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for place in (folder.output, folder.teacher, folder.scratch):
            place.mkdir()
        yield folder
    finally:
        shutil.rmtree(root, ignore_errors=True)
        os.close(lock)


def remove_abandoned(work_dir: Path) -> int:
    """Remove folders whose worker has gone, which left their lock open. Returns how many."""
    attempts = work_dir / "attempts"
    removed = 0
    for root in attempts.iterdir() if attempts.is_dir() else ():
        if _abandoned(root):
            shutil.rmtree(root, ignore_errors=True)
            removed += 1
    return removed


def trim_cache(cache: Path, max_bytes: int) -> None:
    """Remove the files used longest ago until the rest is at most `max_bytes`."""
    kept = 0
    for _, size, path in sorted(_files(cache), reverse=True):
        kept += size
        if kept > max_bytes:
            path.unlink(missing_ok=True)


def _files(folder: Path) -> Iterator[tuple[float, int, Path]]:
    """(used, bytes, path) of all files below; other workers of this machine add and remove some meanwhile."""
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place) / name
            with suppress(FileNotFoundError):
                found = path.stat()
                yield found.st_mtime, found.st_size, path


def _abandoned(root: Path) -> bool:
    try:
        lock = os.open(root / ".lock", os.O_RDWR)
    except OSError:
        return False  # being made, or being removed
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(lock)
    return True
