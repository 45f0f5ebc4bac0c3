"""What a job says while it works. Cheap by design: a step costs one look at the clock."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

from stillhouse.spec.events import LogLine, MetricPoint, Metrics, PhaseStarted, Progress, TrainerEvent
from stillhouse.spec.report import StageTime
from stillhouse.spec.states import Phase

INTERVAL = 1.0  # seconds between two reports of progress


class Reporter:
    """Turns steps and measurements into trainer events. It stands in one phase at a time."""

    def __init__(self, report: Callable[[TrainerEvent], None], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._report, self._clock = report, clock
        self._points: list[MetricPoint] = []
        self._ended: list[StageTime] = []

    @contextmanager
    def phase(
        self, phase: Phase, *, epochs: int = 1, steps: int = 1, rows_per_step: float = 0.0, series: str | None = None
    ) -> Iterator[None]:
        """Announce a phase of `steps` steps in `epochs` epochs; when it ends without error, note its time.

        Its series are named after the phase, or `series`: a phase that comes again needs names of its own.
        """
        self._series = series or phase
        self._phase, self._epochs, self._steps, self._rows_per_step = phase, epochs, steps, rows_per_step
        self._epoch, self._step, self._started = 1, 0, self._clock()
        self._epochs_before, self._steps_before = 0, 0
        self._report(PhaseStarted(phase=phase))
        self._send()
        yield
        self._send()
        self._ended.append(self._so_far())

    def due(self) -> bool:
        """True when a second has passed since the last report: the moment to read numbers off the device."""
        return self._clock() >= self._next

    def next_stage(self) -> None:
        """A phase of several stages goes on: from here each counts its epochs and steps from the start again."""
        self._epochs_before, self._steps_before = (self._epoch if self._step else 0), self._step

    def advance(self, *, step: int, epoch: int = 1) -> None:
        """`step` steps of the stage are done, the last in epoch `epoch` (from 1)."""
        self._epoch, self._step = self._epochs_before + epoch, self._steps_before + step
        if self.due():
            self._send()

    def measured(self, values: Mapping[str, float]) -> None:
        """Keep one value, at the present step, of each named series; they leave together with the next progress."""
        self._points += [
            MetricPoint(name=f"{self._series}/{name}", step=self._step, value=value) for name, value in values.items()
        ]

    def found(self, name: str, value: float) -> None:
        """Keep one value that belongs to no phase, such as how good the teacher is."""
        self._points.append(MetricPoint(name=name, step=0, value=value))

    def stage_times(self) -> list[StageTime]:
        """Seconds of each phase, the present one so far."""
        return [*self._ended, self._so_far()]

    def say(self, message: str, level: Literal["info", "warning"] = "info") -> None:
        """Add a sentence to the job's log."""
        self._report(LogLine(level=level, message=message))

    def _so_far(self) -> StageTime:
        return StageTime(phase=self._phase, seconds=round(self._clock() - self._started, 4))

    def _send(self) -> None:
        self._next = self._clock() + INTERVAL
        self._report(self._progress())
        if self._points:
            self._report(Metrics(points=self._points))
            self._points = []

    def _progress(self) -> Progress:
        seconds = self._clock() - self._started
        speed = self._step / seconds if self._step and seconds > 0 else None  # steps per second
        return Progress(
            phase=self._phase,
            epoch=self._epoch,
            epochs=self._epochs,
            step=self._step,
            steps=self._steps,
            rows_per_second=round(speed * self._rows_per_step, 1) if speed and self._rows_per_step else None,
            eta_seconds=round((self._steps - self._step) / speed, 3) if speed else None,
        )
