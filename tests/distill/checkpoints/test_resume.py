"""A run that dies at any point and is taken up ends with the bits, the report and the series of one that did not."""

import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from stillhouse.spec.events import CheckpointSaved, Progress, TrainerEvent
from stillhouse.spec.states import Phase
from tests.distill.checkpoints.runs import Attempt, Killed, few_digits, points, stands
from tests.distill.conftest import resolved

pytestmark = pytest.mark.usefixtures("bf16_everywhere")

MLP = {"architecture": {"name": "mlp", "hidden": [16], "dropout": 0.2}, "epochs": 1}
CNN = {"architecture": {"name": "cnn", "channels": [4, 4]}, "epochs": 1}
DIVERGING = {"optimizer": "sgd", "momentum": 0.99, "learning_rate": 0.15, "warmup_epochs": 6.0, "epochs": 6}
SMALL_CNN: dict[str, Any] = {"teacher": {"train": CNN}, "student": {"name": "cnn", "channels": [4, 4]}}
BASELINE = {"evaluation": {"baseline": True, "teacher_gate": "off"}}

SPECS: dict[str, dict[str, Any]] = {
    "kd, baseline and fine-tuning": {**BASELINE, "finetune": {"epochs": 1}, "export": {"onnx": True}},
    "two stages, frozen layers, batch norm": {
        **SMALL_CNN,
        **BASELINE,
        "stages": [
            {"losses": [{"kind": "fitnet"}], "epochs": 1, "freeze": ["network.0", "network.1"]},
            {"losses": [{"kind": "kd", "temperature": {"start": 8, "end": 2}}, {"kind": "ce"}], "epochs": 2},
        ],
    },
    "crd, with its memory": {**SMALL_CNN, "losses": [{"kind": "crd", "negatives": 32, "dim": 8}, {"kind": "kd"}]},
    "vid, with its variances": {**SMALL_CNN, "losses": [{"kind": "vid"}, {"kind": "ce"}]},
    "mean teacher": {"teacher": {"ema": {"decay": 0.9}}, "finetune": {"epochs": 1}, **BASELINE},
    "ensemble": {"teacher": {"ensemble": {"members": [{"train": MLP}, {"train": CNN, "weight": 2}]}}},
    "generations before it": {"teacher": {"previous": {"generations": 2}}, "training": {"epochs": 2}},
    "kept views": {
        **SMALL_CNN,
        "training": {"epochs": 3, "augmentation": {"crop_padding": 1, "random_erasing": 0.5}},
        "teacher_outputs": {"views": 2},
    },
    "live teacher": {
        "training": {"epochs": 2, "augmentation": {"crop_padding": 1, "horizontal_flip": True}},
        "teacher_outputs": {"views": "live"},
    },
    "mixup and dropout": {
        "student": {"name": "mlp", "hidden": [16], "dropout": 0.3},
        "training": {"epochs": 2, "augmentation": {"mixup": 0.4}},
    },
    "early stopping": {
        "training": {"epochs": 9, "learning_rate": 0.5, "early_stopping": {"patience": 2}},
        **BASELINE,
    },
    "a teacher whose last epoch is its worst": {
        "teacher": {"train": {"architecture": {"name": "mlp", "hidden": [16]}, "batch_size": 64, **DIVERGING}}
    },
    "balanced sampling, bf16, adam": {
        **SMALL_CNN,
        "training": {"epochs": 2, "sampling": "balanced", "precision": "bf16", "optimizer": "adam"},
    },
    "sgd with momentum and max-norm": {
        "training": {"epochs": 2, "optimizer": "sgd", "momentum": 0.9, "max_norm": 1.0, "warmup_epochs": 1.0}
    },
    "a shrunk student": {"teacher": {"train": CNN}, "student": {"name": "shrink", "width": 0.5}},
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return few_digits(tmp_path_factory.mktemp("data") / "digits.safetensors")


class Trail:
    """A run that went through, and every checkpoint it wrote."""

    def __init__(self, dataset: Path, folder: Path, **spec: Any) -> None:
        defaults = {"teacher": {"train": MLP}, "training": {"epochs": 2}, "losses": [{"kind": "kd"}, {"kind": "ce"}]}
        given = {**defaults, **spec}
        given["training"] = {"batch_size": 64, "learning_rate": 0.01, **given["training"]}
        if "stages" in spec:
            del given["losses"]
        self.spec, self._dataset, self._folder = resolved(dataset, **given), dataset, folder
        (folder / "all").mkdir(parents=True)
        self.alone = Attempt(self.spec, dataset, folder / "alone")
        self.whole = Attempt(self.spec, dataset, folder / "whole", folder / "written", hear=self._keep)

    def files(self) -> list[Path]:
        return sorted((self._folder / "all").iterdir())

    def taken_up(self, file: Path, **given: Any) -> Attempt:
        """A run that finds this checkpoint, as if the one before had died right after it."""
        found = self._folder / "found"
        shutil.rmtree(found, ignore_errors=True)
        found.mkdir()
        shutil.copy(file, found)
        return Attempt(self.spec, self._dataset, self._folder / "out", found, **given)

    def _keep(self, event: TrainerEvent) -> None:
        if isinstance(event, CheckpointSaved):
            shutil.copy(self._folder / "written" / event.file, self._folder / "all")


@pytest.mark.parametrize("name", SPECS)
def test_a_run_taken_up_anywhere_ends_as_one_that_was_never_interrupted(
    name: str, dataset: Path, tmp_path: Path
) -> None:
    trail = Trail(dataset, tmp_path, **SPECS[name])
    # Saving disturbs nothing.
    assert trail.whole.weights == trail.alone.weights
    assert trail.whole.report == trail.alone.report
    assert points(trail.whole.events) == points(trail.alone.events)
    files = trail.files()
    assert len(files) == len(trail.whole.saved) > 4
    draw = random.Random(name)
    for file in draw.sample(files[:-1], 4):
        again = trail.taken_up(file)
        assert again.resumed == [file.name]
        assert again.weights == trail.alone.weights, file.name
        assert again.report == trail.alone.report
        before = stands(trail.whole.events, file.name)
        assert points(before) + points(again.events) == points(trail.alone.events)


def test_a_run_stopped_while_a_teachers_last_weights_are_compared_with_better_ones_ends_with_the_same(
    dataset: Path, tmp_path: Path
) -> None:
    train = {**MLP, "epochs": 4, "learning_rate": 0.3, "batch_size": 64}
    trail = Trail(dataset, tmp_path, teacher={"train": train}, training={"epochs": 1})
    losses = [value for name, _, value in points(trail.alone.events) if name == "training_teacher/validation_loss"]
    assert min(losses) < losses[-1]  # chance explains it, so that the last stay
    looks: list[str] = []
    phases = [""]

    def look() -> None:
        looks.append(phases[-1])

    def hear(event: TrainerEvent) -> None:
        phases.extend([event.phase] if isinstance(event, Progress) else [])

    rarely = 1e-9  # after the first checkpoint, one is written when it is told to stop
    Attempt(trail.spec, dataset, tmp_path / "out", tmp_path / "counted", share=rarely, hear=hear, wishes=look)
    over = len(looks) - looks[::-1].index(Phase.TRAINING_TEACHER)
    for stop in range(over - 4, over):
        wishes = iter([*[None] * stop, "stop"])
        folder = tmp_path / str(stop)
        stopped = Attempt(trail.spec, dataset, tmp_path / "out", folder, share=rarely, wishes=wishes.__next__)
        assert stopped.finished is None
        again = Attempt(trail.spec, dataset, tmp_path / "out", folder)
        assert again.weights == trail.alone.weights
        assert again.report == trail.alone.report


def test_a_run_may_die_again_and_again_even_before_its_first_new_checkpoint(dataset: Path, tmp_path: Path) -> None:
    trail = Trail(dataset, tmp_path, **SPECS["kd, baseline and fine-tuning"])
    draw = random.Random(0)
    folder, deaths = tmp_path / "dying", 0
    while True:
        left = draw.randrange(1, 40)

        def die(event: TrainerEvent) -> None:
            nonlocal left
            left -= 1
            if left <= 0:
                raise Killed

        attempt = Attempt(trail.spec, dataset, tmp_path / "out", folder, hear=die)
        if attempt.finished is not None:
            break
        deaths += 1
        assert len(list(folder.iterdir())) <= 2
    assert deaths > 3
    assert attempt.weights == trail.alone.weights
    assert attempt.report == trail.alone.report


def test_the_random_numbers_of_the_caller_are_left_alone(dataset: Path, tmp_path: Path) -> None:
    trail = Trail(dataset, tmp_path)
    torch.manual_seed(7)
    before = torch.get_rng_state()
    trail.taken_up(trail.files()[5])
    assert torch.equal(torch.get_rng_state(), before)


def test_a_budget_chooses_its_student_once(dataset: Path, tmp_path: Path) -> None:
    candidates = [{"name": "mlp", "hidden": [48]}, {"name": "mlp", "hidden": [8]}]
    trail = Trail(dataset, tmp_path, student={"budget": {"latency_ms": 1000.0}, "candidates": candidates})
    first = trail.files()[0]
    assert trail.whole.saved[0].phase == "preparing"  # before any network was trained
    again = trail.taken_up(first)
    assert again.report["chosen_student"] == trail.whole.report["chosen_student"]  # to the last digit of the time
    assert again.weights == trail.whole.weights
