"""Runs that leave a checkpoint after every step, die where the test says, and are taken up."""

import hashlib
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from distill import Checkpoints, RunIO, Stopped, run
from stillhouse.spec import JobSpec
from stillhouse.spec.events import CheckpointSaved, Finished, LogLine, Metrics, Resumed, TrainerEvent
from tests.distill.conftest import digits, store


class Killed(BaseException):
    """Nothing in the engine expects it, as nothing expects SIGKILL."""


def few_digits(path: Path) -> Path:
    """205 training, 50 validation and 60 test images: four steps of 64 rows, the last one smaller."""
    x, y, split = digits()
    kept = np.concatenate([np.flatnonzero(split == part)[:rows] for part, rows in enumerate((205, 50, 60))])
    return store(path, x[kept], y[kept], split[kept], tuple("0123456789"))


class Attempt:
    """One run, alone or in a folder of checkpoints where an earlier one may have died."""

    def __init__(
        self,
        spec: JobSpec,
        dataset: Path,
        output: Path,
        checkpoints: Path | None = None,
        *,
        share: float = 1e9,
        hear: Callable[[TrainerEvent], None] = lambda event: None,
        **io: Any,
    ) -> None:
        self.events: list[TrainerEvent] = []
        self.finished: Finished | None = None
        self.output = output
        shutil.rmtree(output, ignore_errors=True)
        output.mkdir(parents=True)
        every = None if checkpoints is None else Checkpoints(checkpoints, every_seconds=0.0, share=share)
        given: dict[str, Any] = {"teacher": None, "threads": 1, "checkpoints": every, **io}

        def report(event: TrainerEvent) -> None:
            self.events.append(event)
            hear(event)

        with suppress(Killed, Stopped):
            self.finished = run(spec, RunIO(dataset=dataset, output=output, **given), report)

    @property
    def weights(self) -> str:
        """Digest of the student."""
        return hashlib.sha256((self.output / "model.safetensors").read_bytes()).hexdigest()

    @property
    def report(self) -> dict[str, Any]:
        """All that was found, but for what a clock tells."""
        assert self.finished is not None
        report = self.finished.report.model_dump()
        report["stages"] = [stage["phase"] for stage in report["stages"]]
        for model in report["models"]:
            model["latency"] = len(model["latency"])
        return report

    @property
    def lines(self) -> str:
        return "\n".join(event.message for event in self.events if isinstance(event, LogLine))

    @property
    def resumed(self) -> list[str | None]:
        return [event.file for event in self.events if isinstance(event, Resumed)]

    @property
    def saved(self) -> list[CheckpointSaved]:
        return [event for event in self.events if isinstance(event, CheckpointSaved)]


def points(events: list[TrainerEvent]) -> list[tuple[str, int, float]]:
    """What the series hold, in the order it was told."""
    told = [point for event in events if isinstance(event, Metrics) for point in event.points]
    return [(point.name, point.step, point.value) for point in told]


def stands(events: list[TrainerEvent], checkpoint: str | None) -> list[TrainerEvent]:
    """What a lost attempt told before it wrote `checkpoint`."""
    names = [event.file if isinstance(event, CheckpointSaved) else None for event in events]
    return events[: names.index(checkpoint)]
