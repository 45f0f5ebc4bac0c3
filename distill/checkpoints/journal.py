"""What of a run is done, kept so that a run that dies goes on where it was.

A run is a row of lessons: each network that is trained, stage by stage. All between two lessons is worked out again by
the run that goes on, as it depends on their results alone; what was found by measuring time is noted. So a checkpoint
holds the networks of the lessons that are over, and of the one at work, at a step's boundary, all that moves.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from distill.checkpoints.file import State, under
from distill.checkpoints.folder import Checkpoints, Folder
from distill.checkpoints.parts import streams
from distill.checkpoints.prints import Prints
from distill.reporter import Reporter
from stillhouse.spec.checkpoint import BEST_PREFIX
from stillhouse.spec.events import CheckpointSaved, Resumed, Wish


class Stopped(Exception):
    """The run was asked to stop, and did: what is done is in its last checkpoint."""


@dataclass
class Record:
    """What is over, in plain values."""

    lessons: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Lesson → network, epochs, and the time it took."""
    notes: dict[str, Any] = field(default_factory=dict)
    """What was measured by the clock, or asked from outside."""
    warnings: list[str] = field(default_factory=list)
    """For the report."""


class Journal:
    """One run's account of itself."""

    def __init__(
        self,
        reporter: Reporter,
        device: torch.device,
        *,
        checkpoints: Checkpoints | None = None,
        prints: Prints | None = None,
        wishes: Callable[[], Wish | None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nothing is written without `checkpoints`, which need `prints`."""
        self.reporter, self.device = reporter, device
        self._checkpoints, self._prints, self._wishes, self._clock = checkpoints, prints, wishes, clock
        self._folder = None if checkpoints is None else Folder(checkpoints.folder)
        self._next = clock() + (0.0 if checkpoints is None else checkpoints.every_seconds)
        self._refused = False
        self.record = Record()
        self.networks: dict[str, Callable[[], Mapping[str, Tensor]]] = {}
        self.streams: dict[str, Tensor] = {}
        """Where the random numbers stood when the last lesson ended."""
        self.at_work: Callable[[], State] | None = None
        """The lesson at work: how it stands, between two steps."""
        self.pending: State | None = None
        """A lesson that was at work when the checkpoint was written, until it is taken up."""
        self.student: Callable[[], Mapping[str, Tensor]] | None = None
        """The best student so far, by the names of its file; None before it has begun to learn."""
        self._saved = self._mark()

    def take_up(self) -> None:
        """Go on from the newest checkpoint that is whole and of this run; say what is wrong with others."""
        if self._folder is None or self._prints is None:
            return
        found = self._folder.newest(self._prints.why_not, lambda line: self.reporter.say(line, "warning"))
        if found is None:
            return
        name, state = found
        self.record = Record(**state.facts["record"])
        self.networks = {one: _kept(state.below(f"networks/{one}")) for one in state.facts["networks"]}
        self.streams = state.below("streams")
        if best := state.below(BEST_PREFIX.rstrip("/")):
            self.student = _kept(best)
        if (lesson := state.facts["lesson"]) is not None:
            twice = under("best", best) if lesson["best_is_student"] else {}
            self.pending = State(lesson, {**state.below("lesson"), **twice})
        self.reporter.shown = list(state.facts["shown"])
        self._saved = self._mark()
        self.reporter.tell(Resumed(file=name))
        self.reporter.say(f"Going on from checkpoint {name}, {self._where()}.")
        if (otherwise := self._prints.otherwise(state)) is not None:
            self.warn(otherwise)

    @property
    def finishing(self) -> bool:
        """True when training is to end now."""
        return "finish" in self.record.notes

    @property
    def warnings(self) -> list[str]:
        """For the report."""
        return self.record.warnings

    def left_out(self, name: str) -> bool:
        """True when a stage has not begun and the run was asked to finish."""
        begun = name in self.record.lessons or (self.pending is not None and self.pending.facts["name"] == name)
        if not self.finishing or begun:
            return False
        self.warn(f"The job was asked to finish: {_in_words(name)} was left out.")
        return True

    @property
    def can_finish(self) -> bool:
        """True when that may be asked for."""
        return self._wishes is not None

    def warn(self, sentence: str) -> None:
        """Add it to what the report says, once."""
        if sentence not in self.record.warnings:
            self.record.warnings.append(sentence)

    def noted(self, name: str) -> Any:
        """What was noted under `name`; None when nothing was."""
        return self.record.notes.get(name)

    def note(self, name: str, value: Any) -> None:
        """Write down at once a JSON value that another run would find otherwise."""
        self.record.notes[name] = value
        self.save()

    def look(self) -> None:
        """Save when it is time, and do as is wished. For about once a second, never within an optimizer step.

        Raises Stopped.
        """
        wish = None if self._wishes is None else self._wishes()
        if wish == "finish" and not self.finishing:
            self.reporter.say("Asked to finish: training ends now, and the student is measured and exported.")
            self.note("finish", True)
        if wish == "stop":
            self.save()
            raise Stopped
        if self._checkpoints is not None and self._clock() >= self._next:
            self.save()

    def save(self) -> None:
        """Write a checkpoint, unless nothing is new. A disk that refuses is said once; the last ones stay."""
        if self._folder is None or self._checkpoints is None:
            return
        begun = self._clock()
        lesson = self._lesson()
        if (mark := self._mark(lesson)) != self._saved:
            self.reporter.flush()
            try:
                name, written = self._folder.add(self._state(lesson))
            except OSError:
                if not self._refused:
                    self.reporter.say("A checkpoint could not be written: the disk refused.", "warning")
                self._refused = True
            else:
                self._refused, self._saved = False, mark
                self._tell(name, written.bytes, written.sha256, lesson)
        now = self._clock()
        self._next = now + max(self._checkpoints.every_seconds, (now - begun) / self._checkpoints.share)

    def over(
        self, name: str, network: str, tensors: Callable[[], Mapping[str, Tensor]], facts: Mapping[str, Any]
    ) -> None:
        """A lesson has ended."""
        self.at_work, self.pending = None, None
        self.record.lessons[name] = {"network": network, **facts}
        self.networks[network] = tensors
        self.streams = streams(self.device)

    def _lesson(self) -> State | None:
        return self.at_work() if self.at_work is not None else self.pending

    def _state(self, lesson: State | None) -> State:
        assert self._prints is not None
        tensors = under("streams", self.streams)
        for network, kept in self.networks.items():
            tensors |= under(f"networks/{network}", kept())
        if self.student is not None:
            tensors |= {BEST_PREFIX + name: value for name, value in self.student().items()}
        if lesson is not None:
            # The best weights of the student's own lesson are there already.
            once = lesson.without("best") if lesson.facts["best_is_student"] else lesson.tensors
            tensors |= under("lesson", once)
        facts = {
            "prints": self._prints.facts(),
            "record": asdict(self.record),
            "networks": list(self.networks),
            "lesson": None if lesson is None else lesson.facts,
            "shown": self.reporter.shown,
        }
        return State(facts, tensors)

    def _mark(self, lesson: State | None = None) -> str:
        """Differs when there is something new to be saved."""
        lesson = lesson or self.pending
        return repr((self.record, None if lesson is None else lesson.facts["place"]))

    def _where(self) -> str:
        done = ", ".join(_in_words(name) for name in self.record.lessons)
        over = f"after {done}" if done else "before the first network was trained"
        if self.pending is None:
            return over
        name, place = _in_words(self.pending.facts["name"]), self.pending.facts["place"]
        return f"{over}, {name} at step {place['step']:,}" if done else f"{name} at step {place['step']:,}"

    def _tell(self, name: str, size: int, sha256: str, lesson: State | None) -> None:
        now = self.reporter.progress()
        course = {} if lesson is None else lesson.facts["course"]
        event = CheckpointSaved(
            file=name,
            bytes=size,
            sha256=sha256,
            phase=now.phase,
            epoch=now.epoch,
            step=now.step,
            steps=now.steps,
            loss=course.get("validation_loss"),
            best=course.get("is_best", False),
        )
        self.reporter.tell(event)


def _in_words(name: str) -> str:
    return name.replace("_", " ")


def _kept(tensors: Mapping[str, Tensor]) -> Callable[[], Mapping[str, Tensor]]:
    return lambda: tensors
