"""The folder of a run's checkpoints: numbered files, the last two of which are kept."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from distill.checkpoints.file import TEMPORARY, Damaged, State, Written, read, write

KEPT = 2
SUFFIX = ".checkpoint"


@dataclass(frozen=True)
class Checkpoints:
    """Where a run writes down how far it is, and how often."""

    folder: Path
    """Made when it is missing. What an earlier run of the same spec on the same data left here is gone on from."""
    every_seconds: float = 30.0
    """At least so long from one to the next."""
    share: float = 0.02
    """Of the time, writing takes no more than this: after one that took w seconds, the next comes no sooner than
    w / share later."""


class Folder:
    """The files, as one run writes and reads them."""

    def __init__(self, path: Path) -> None:
        """What a killed run has left half written is removed."""
        self._path = path
        path.mkdir(parents=True, exist_ok=True)
        for partial in path.glob(f"*{SUFFIX}{TEMPORARY}"):
            partial.unlink(missing_ok=True)
        self._last = max(map(_number, self._files()), default=0)

    def newest(self, why_not: Callable[[State], str | None], say: Callable[[str], None]) -> tuple[str, State] | None:
        """Name and content of the newest file that is whole and of which `why_not` finds nothing to say. Those passed
        over go away, so that they are not counted among the two that are kept."""
        for path in self._files():
            try:
                state = read(path)
                reason = why_not(state)
            except Damaged as error:
                reason = str(error)
            if reason is None:
                return path.name, state
            say(f"Checkpoint {path.name} is passed over: {reason}.")
            path.unlink(missing_ok=True)
        return None

    def add(self, state: State) -> tuple[str, Written]:
        """Write one more, and keep it and the one before. Raises OSError where the disk refuses."""
        self._last += 1
        name = f"{self._last:06}{SUFFIX}"
        written = write(self._path / name, state)
        for old in self._files()[KEPT:]:
            old.unlink(missing_ok=True)
        return name, written

    def _files(self) -> list[Path]:
        """From the newest to the oldest."""
        named = (path for path in self._path.glob(f"*{SUFFIX}") if path.stem.isdecimal())
        return sorted(named, key=_number, reverse=True)


def _number(path: Path) -> int:
    return int(path.stem)
