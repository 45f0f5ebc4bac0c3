"""What may be wished of a run while it works: to stop and be taken up later, or to finish now."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distill.model import load
from stillhouse.spec.events import PhaseStarted, Progress, TrainerEvent, Wish
from tests.distill.checkpoints.runs import Attempt, few_digits, points, stands
from tests.distill.conftest import resolved

SPEC: dict[str, Any] = {
    "teacher": {"train": {"architecture": {"name": "mlp", "hidden": [16]}, "epochs": 4}},
    "training": {"epochs": 6, "batch_size": 64, "learning_rate": 0.01},
    "finetune": {"epochs": 2},
    "evaluation": {"baseline": True},
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return few_digits(tmp_path_factory.mktemp("data") / "digits.safetensors")


class Wishing:
    """Wishes something from the moment an event shows on."""

    def __init__(self, wish: Wish, when: Callable[[TrainerEvent], bool]) -> None:
        self._wish, self._when, self._now = wish, when, False

    def hear(self, event: TrainerEvent) -> None:
        self._now = self._now or self._when(event)

    def __call__(self) -> Wish | None:
        return self._wish if self._now else None


def at(phase: str, step: int) -> Callable[[TrainerEvent], bool]:
    return lambda event: isinstance(event, Progress) and event.phase == phase and event.step == step


@pytest.fixture(scope="module")
def alone(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Attempt:
    return Attempt(resolved(dataset, **SPEC), dataset, tmp_path_factory.mktemp("alone") / "out")


@pytest.mark.parametrize(
    ("phase", "step"),
    [
        ("preparing", 0),
        ("training_teacher", 7),
        ("training_baseline", 0),
        ("labelling", 1),
        ("distilling", 3),
        ("distilling", 24),
        ("finetuning", 8),
        ("evaluating", 0),
        ("evaluating", 2),
        ("exporting", 0),
    ],
)
def test_a_run_stops_at_once_and_is_taken_up_where_it_stopped(
    phase: str, step: int, dataset: Path, alone: Attempt, tmp_path: Path
) -> None:
    wishes, spec = Wishing("stop", at(phase, step)), resolved(dataset, **SPEC)
    stopped = Attempt(spec, dataset, tmp_path / "out", tmp_path / "all", hear=wishes.hear, wishes=wishes)
    assert stopped.finished is None
    reached = [event for event in stopped.events if isinstance(event, Progress)][-1]
    assert (reached.phase, reached.step) == (phase, step)
    again = Attempt(spec, dataset, tmp_path / "out", tmp_path / "all", wishes=lambda: None)
    assert again.weights == alone.weights
    assert again.report == alone.report
    before = stands(stopped.events, again.resumed[0]) if again.resumed else []
    assert points(before) + points(again.events) == points(alone.events)


def test_a_stop_without_checkpoints_just_stops(dataset: Path, tmp_path: Path) -> None:
    wishes = Wishing("stop", at("training_teacher", 0))
    stopped = Attempt(resolved(dataset, **SPEC), dataset, tmp_path / "out", hear=wishes.hear, wishes=wishes)
    assert stopped.finished is None
    assert stopped.saved == []


def test_finish_ends_the_student_with_its_best_weights_and_leaves_out_what_is_left(
    dataset: Path, alone: Attempt, tmp_path: Path
) -> None:
    wishes = Wishing("finish", at("distilling", 10))
    out = Attempt(
        resolved(dataset, **SPEC), dataset, tmp_path / "out", tmp_path / "all", hear=wishes.hear, wishes=wishes
    )
    assert out.finished is not None
    assert out.report["epochs_run"] == alone.report["epochs_run"] | {"distilling": 3, "finetuning": 0}
    said = "\n".join(out.report["warnings"])
    assert "distilling ran 3 of 6 epochs" in said
    assert "finetuning was left out" in said
    losses = {step: value for name, step, value in points(out.events) if name == "distilling/validation_loss"}
    assert list(losses) == [4, 8, 10]  # the third epoch is measured where it was cut
    assert load(tmp_path / "out")  # a student like any other
    assert [e.phase for e in out.events if isinstance(e, PhaseStarted)][-2:] == ["evaluating", "exporting"]


def test_finish_keeps_the_best_epoch_and_not_the_last(dataset: Path, tmp_path: Path) -> None:
    # A step size so large that some later epoch is worse than an earlier one.
    training = {"epochs": 9, "batch_size": 64, "learning_rate": 0.5, "schedule": "constant"}
    spec = resolved(dataset, **{**SPEC, "training": training, "finetune": None, "evaluation": {"baseline": False}})

    def finished_after(epochs: int) -> Attempt:
        folder, wishes = tmp_path / str(epochs), Wishing("finish", at("distilling", 4 * epochs))
        return Attempt(spec, dataset, folder / "out", folder / "all", hear=wishes.hear, wishes=wishes)

    late = finished_after(8)
    losses = [value for name, _, value in points(late.events) if name == "distilling/validation_loss"]
    best = losses.index(min(losses)) + 1
    assert best < len(losses) == 8
    assert late.weights == finished_after(best).weights


def test_finish_before_the_student_has_begun_gives_each_network_an_epoch(dataset: Path, tmp_path: Path) -> None:
    wishes = Wishing("finish", at("training_teacher", 6))
    out = Attempt(
        resolved(dataset, **SPEC), dataset, tmp_path / "out", tmp_path / "all", hear=wishes.hear, wishes=wishes
    )
    ran = out.report["epochs_run"]
    assert ran == {"training_teacher": 1, "training_baseline": 1, "distilling": 1, "finetuning": 0} | {
        "training_teacher": ran["training_teacher"]
    }
    assert ran["training_teacher"] < 4


def test_a_run_that_was_asked_to_finish_and_died_still_finishes(dataset: Path, tmp_path: Path) -> None:
    spec, wishes = resolved(dataset, **SPEC), Wishing("finish", at("distilling", 10))

    def die(event: TrainerEvent) -> None:
        wishes.hear(event)
        if isinstance(event, PhaseStarted) and event.phase == "evaluating":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Attempt(spec, dataset, tmp_path / "out", tmp_path / "all", hear=die, wishes=wishes)
    again = Attempt(spec, dataset, tmp_path / "out", tmp_path / "all")
    assert again.report["epochs_run"]["distilling"] == 3
    assert any("distilling ran 3 of 6" in line for line in again.report["warnings"])
