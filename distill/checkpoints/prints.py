"""What a run depends on: a checkpoint is gone on from by the same work alone."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from distill.checkpoints.file import State


@dataclass(frozen=True)
class Prints:
    """Of one run. Files are read when the first checkpoint is written or read, not before."""

    spec: str
    """Resolved, as JSON."""
    dataset: Path
    dataset_sha256: str | None
    """Of that file, when somebody has worked it out already."""
    teacher: Path | None
    """Folder of the teacher's files."""
    arithmetic: Sequence[str]
    """What the last bits of every sum depend on."""

    @cached_property
    def work(self) -> str:
        """The same for the same spec, data and teacher, wherever it runs."""
        files = sorted(path for path in self.teacher.rglob("*") if path.is_file()) if self.teacher else []
        data = self.dataset_sha256 or _digest(self.dataset)
        parts = [self.spec, data, *map(_digest, files)]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def facts(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"work": self.work, "arithmetic": list(self.arithmetic)}

    def why_not(self, state: State) -> str | None:
        """Why a run cannot go on from `state`; None when it can."""
        same = state.facts["prints"]["work"] == self.work
        return None if same else "it is of another spec, dataset or teacher"

    def otherwise(self, state: State) -> str | None:
        """What is to be said when the arithmetic is another one here; None when no bit will differ."""
        if state.facts["prints"]["arithmetic"] == list(self.arithmetic):
            return None
        return (
            "This job went on on another kind of machine, with other threads or another release: the last bits of its "
            "weights may differ from those of a run that was never interrupted."
        )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
