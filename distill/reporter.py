"""What a job says while it works. Cheap by design: a step costs one look at the clock."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

from stillhouse.spec.events import LogLine, MetricPoint, Metrics, PhaseStarted, Progress, TrainerEvent
from stillhouse.spec.report import StageTime
from stillhouse.spec.states import Phase

INTERVAL = 1.0  # seconds between two reports of progress


class Reporter:
    """Turns steps and measurements into trainer events. It stands in one phase at a time."""

    def __init__(
        self,
        report: Callable[[TrainerEvent], None],
        *,
        clock: Callable[[], float] = time.monotonic,
        interval: float = INTERVAL,
    ) -> None:
        """`interval` seconds lie between two reports of progress."""
        self._report, self._clock, self._interval = report, clock, interval
        self._look: Callable[[], None] = lambda: None
        self._next = clock()
        self._points: list[MetricPoint] = []
        self._ended: list[StageTime] = []
        self.shown: list[str] = []
        """Values that belong to no phase and have been reported: they are not reported again."""

    def each_time(self, look: Callable[[], None]) -> None:
        """Have `look` called after each report of progress: never within a step."""
        self._look = look

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
        self._ended.append(self.spent())

    def due(self) -> bool:
        """True when a second has passed since the last report: the moment to read numbers off the device."""
        return self._clock() >= self._next

    def breathe(self) -> None:
        """Between two pieces of work that is no training: see whether something is wanted."""
        if self.due():
            self._next = self._clock() + self._interval
            self._look()

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
        if name not in self.shown:
            self.shown.append(name)
            self._points.append(MetricPoint(name=name, step=0, value=value))

    def stage_times(self) -> list[StageTime]:
        """Seconds of each phase, the present one so far."""
        return [*self._ended, self.spent()]

    def spent(self) -> StageTime:
        """Seconds of the present phase so far."""
        return StageTime(phase=self._phase, seconds=round(self._clock() - self._started, 4))

    def took(self, phase: str, seconds: float) -> None:
        """A phase that an earlier attempt has ended."""
        self._ended.append(StageTime(phase=phase, seconds=seconds))

    def standing(self) -> dict[str, Any]:
        """How far the phase is, for `go_on`."""
        counts = (self._epochs_before, self._steps_before, self._epoch, self._step)
        return {"counts": list(counts), "seconds": self._clock() - self._started}

    def go_on(self, standing: Mapping[str, Any]) -> None:
        """An earlier attempt has come so far in this phase."""
        self._epochs_before, self._steps_before, self._epoch, self._step = standing["counts"]
        self._started = self._clock() - standing["seconds"]

    def say(self, message: str, level: Literal["info", "warning"] = "info") -> None:
        """Add a sentence to the job's log."""
        self._report(LogLine(level=level, message=message))

    def flush(self) -> None:
        """Report the values that were kept."""
        if self._points:
            self._report(Metrics(points=self._points))
            self._points = []

    def tell(self, event: TrainerEvent) -> None:
        """Report anything else."""
        self._report(event)

    def progress(self) -> Progress:
        """How far the present phase is."""
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

    def _send(self) -> None:
        self._next = self._clock() + self._interval
        self._report(self.progress())
        self.flush()
        self._look()
