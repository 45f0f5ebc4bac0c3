"""One lesson of a run: a network trained through stages of one phase, which can be left and taken up at any step."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from distill.checkpoints.file import State, under
from distill.checkpoints.journal import Journal
from distill.checkpoints.parts import Unfit, contents, pour, wind
from distill.course import Course
from distill.ema import Ema
from distill.evaluate import Score
from distill.reporter import Reporter


class Lesson:
    """What the training loop asks of the journal. Raises Unfit where a checkpoint holds other networks."""

    def __init__(self, journal: Journal, name: str, network: str, average: Ema | None = None) -> None:
        """`name` is unique in the run; stages of one network may be lessons of their own. `average` moves along."""
        self._journal, self._name, self._network, self._average = journal, name, network, average
        self._cut, self._of_student = False, network == "student"
        pending = journal.pending
        self._pending = pending if pending is not None and pending.facts["name"] == name else None
        # What has not begun when the run is asked to finish gets one epoch: no network is judged untrained.
        self._hurried = journal.finishing if self._pending is None else bool(self._pending.facts["hurried"])

    @classmethod
    def alone(cls, reporter: Reporter, device: torch.device) -> "Lesson":
        """One that nobody writes down."""
        return cls(Journal(reporter, device), "", "")

    @property
    def keeps_best(self) -> bool:
        """True when the best weights may be wanted though the stage does not ask for them."""
        return self._of_student and self._journal.can_finish

    @property
    def begins_at(self) -> tuple[int, int]:
        """The stage to begin with, from 0, and the epochs run in those before it."""
        if self._pending is None:
            return 0, 0
        return self._pending.facts["place"]["stage"], self._pending.facts["run"]

    def recalled(self, net: nn.Module) -> int | None:
        """Epochs run, and the trained weights in `net`, when an earlier attempt has ended this lesson."""
        facts = self._journal.record.lessons.get(self._name)
        if facts is None:
            return None
        self._put_back(State(facts, self._journal.networks[self._network]()), net)
        net.eval()
        wind(self._journal.streams, self._journal.device)
        self._journal.reporter.took(facts["phase"], facts["seconds"])
        return int(facts["epochs"])

    def take_up(self, course: Course) -> None:
        """Put everything that moves where it stood, if this lesson was at work."""
        if self._pending is None:
            return
        facts = self._pending.facts
        self._put_back(self._pending, course.net)
        course.load(facts["course"], self._pending)
        wind(self._pending.below("streams"), self._journal.device)
        self._journal.reporter.go_on(facts["standing"])
        self._pending = None

    def watch(self, course: Course, *, stage: int, run: int) -> None:
        """From here on, `course` is how the lesson stands."""

        def state() -> State:
            facts, tensors = course.state()
            place = {"stage": stage, "epoch": course.epoch, "step": course.step}
            standing = self._journal.reporter.standing()
            about = {"name": self._name, "hurried": self._hurried, "run": run, "place": place, "standing": standing}
            about["best_is_student"] = self._of_student and bool(course.best.weights)
            return State({**about, "course": facts, **self._steps()}, {**tensors, **self._tensors(course.net)})

        self._journal.at_work, self._journal.pending = state, None
        if self._of_student:
            self._journal.student = lambda: course.best.weights or course.net.state_dict()

    def ends(self, *, epoch_begun: bool = False) -> bool:
        """True when the run was asked to finish, and this lesson ends here."""
        self._cut = self._journal.finishing and not (self._hurried and epoch_begun)
        return self._cut

    def kept(self, when: str, found: Score, last: Score) -> None:
        """Say that weights from before the end stay, and why."""
        self._journal.warn(
            f"A teacher learnt its rows by heart: its weights after {when} are kept. They are right on "
            f"{found.correct:,} of {found.rows:,} validation rows, those of the last epoch on {last.correct:,}."
        )

    def over(self, net: nn.Module, *, epochs: int, of: int) -> None:
        """`net` is trained, in `epochs` of `of` epochs."""
        if self._cut and epochs < of:
            name = self._name.replace("_", " ")
            self._journal.warn(f"The job was asked to finish: {name} ran {epochs} of {of} epochs.")
        spent = self._journal.reporter.spent()
        facts = {"epochs": epochs, "phase": spent.phase, "seconds": spent.seconds, **self._steps()}
        if self._of_student:
            self._journal.student = net.state_dict
        self._journal.over(self._name, self._network, lambda: self._tensors(net), facts)

    def _steps(self) -> dict[str, Any]:
        return {} if self._average is None else {"average_steps": self._average.steps}

    def _tensors(self, net: nn.Module) -> Mapping[str, Tensor]:
        average = {} if self._average is None else under("average", contents(self._average.net))
        return {**under("net", contents(net)), **average}

    def _put_back(self, state: State, net: nn.Module) -> None:
        pour(state.below("net"), net)
        if self._average is not None:
            if "average_steps" not in state.facts:
                raise Unfit
            pour(state.below("average"), self._average.net)
            self._average.steps = int(state.facts["average_steps"])
