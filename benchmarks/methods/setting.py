"""The task: MNIST with few labels, a small student, and a teacher that has seen the whole training set.

The images are halved to 14×14 by the mean of 2×2 pixels, which makes the nearly two hundred jobs four times cheaper.

Every seed draws a transfer set, first weights and batches of its own, and within a seed all conditions share them.
Weights of losses are chosen on training images that neither the teacher nor any student has seen, with seeds of their
own; test images serve for the table alone.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import distill
from benchmarks.hinton import mnist
from benchmarks.hinton.mnist import Images
from stillhouse.spec import DataFacts, JobSpec, Limits, resolve
from stillhouse.spec.events import ModelConfig

SEEDS = (0, 1, 2, 3, 4)
CHOOSING_SEEDS = (100, 101)
"""For choosing weights; none of them is reported."""
IMAGES_PER_CLASS = 50
HELD_OUT = 2_000
STUDENT: dict[str, Any] = {"name": "cnn", "channels": [16, 32, 64]}
TEACHER: dict[str, Any] = {
    "architecture": {"name": "cnn", "channels": [32, 64, 128]},
    "epochs": 10,
    "augmentation": {"crop_padding": 1},
}
TRAINING: dict[str, Any] = {"epochs": 40, "batch_size": 64}
_MODEL = "mdl_" + "0" * 26  # the service would name the teacher so; here its folder is given beside the spec


@dataclass(frozen=True)
class Stored:
    """A stored dataset file, and what it holds."""

    name: str
    path: Path
    facts: DataFacts


@dataclass(frozen=True)
class Setting:
    """What the jobs of one run share."""

    folder: Path
    seen: Images
    """Training images without the held-out ones: the teacher's, and the pool of transfer sets."""
    held_out: Images
    test: Images
    teacher: Path
    """A model folder."""

    @property
    def taught_by(self) -> ModelConfig:
        """What the service would hold of the teacher."""
        return ModelConfig.model_validate_json((self.teacher / "config.json").read_bytes())

    def dataset(self, seed: int, *, choosing: bool) -> Stored:
        """The transfer set of this seed, and what is measured on: held-out images for choosing, else the test set."""
        name = f"{'held-out' if choosing else 'test'}-{seed}"
        path = self.folder / f"{name}.safetensors"
        rows = transfer_rows(self.seen.y, seed)
        facts = mnist.store(path, self.seen.pick(rows), self.held_out if choosing else self.test)
        return Stored(name, path, facts)

    def spec(self, losses: Sequence[dict[str, Any]], seed: int, facts: DataFacts, **other: Any) -> JobSpec:
        """A resolved job: these losses, everything else as always unless `other` says it."""
        given: dict[str, Any] = {
            "teacher": {"model": _MODEL},
            "dataset": {"builtin": "digits"},  # a placeholder: the file is given beside the spec
            "student": STUDENT,
            "losses": list(losses),
            "training": {**TRAINING, "seed": seed},
            "evaluation": {"baseline": False},
            "export": {"onnx": False},
            **other,
        }
        spec = JobSpec.model_validate(given)
        held = (self.taught_by,) if spec.teacher.model else ()
        return resolve(spec, facts, Limits(), teachers=held)


def prepare(folder: Path) -> Setting:
    """Fetch MNIST and train the teacher, unless both lie in `folder` already."""
    folder.mkdir(parents=True, exist_ok=True)
    train, test = map(halved, mnist.fetch(folder))
    seen, held_out = mnist.hold_out(train, HELD_OUT)
    teacher = folder / "teacher"
    if not (teacher / "config.json").exists():
        print("training the teacher on 58,000 images …", flush=True)
        _train_teacher(folder, teacher, seen, held_out)
    return Setting(folder, seen, held_out, test, teacher)


def halved(images: Images) -> Images:
    """uint8 [N, 1, H, W] → [N, 1, H/2, W/2]: the mean of each 2×2 pixels, rounded down."""
    n, _, height, width = images.x.shape
    squares = images.x.reshape(n, 1, height // 2, 2, width // 2, 2)
    return Images((squares.sum((3, 5), dtype=np.uint16) // 4).astype(np.uint8), images.y)


def transfer_rows(y: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Equally many random rows of each class, in ascending order."""
    draw = np.random.default_rng(seed)
    return np.sort(
        np.concatenate([draw.choice(np.flatnonzero(y == c), IMAGES_PER_CLASS, replace=False) for c in np.unique(y)])
    )


def _train_teacher(folder: Path, teacher: Path, seen: Images, held_out: Images) -> None:
    """By a job whose student hardly matters: it is the smallest there is, for one epoch on the labels."""
    path = folder / "teacher data.safetensors"
    facts = mnist.store(path, seen, held_out)
    given = {
        "teacher": {"train": TEACHER},
        "dataset": {"builtin": "digits"},
        "student": {"name": "cnn", "channels": [1]},
        "losses": [{"kind": "ce"}],
        "training": {"epochs": 1, "batch_size": 1000},
        "evaluation": {"baseline": False},
        "export": {"onnx": False},
    }
    files = folder / "teacher files"
    shutil.rmtree(files, ignore_errors=True)
    files.mkdir()
    spec = resolve(JobSpec.model_validate(given), facts, Limits())
    distill.run(spec, distill.RunIO(dataset=path, teacher=None, output=files, threads=1), lambda _event: None)
    teacher.mkdir(exist_ok=True)
    shutil.copy(files / "teacher.safetensors", teacher / "model.safetensors")
    shutil.copy(files / "teacher.json", teacher / "config.json")  # last: it says that the folder is whole
