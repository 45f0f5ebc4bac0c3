"""What is measured: real files, made from a seed, read the way a service would read them.

Images are 32×32 in colour: each class is a smooth pattern of its own, moved, scaled in contrast and covered with noise,
so a network has something to learn. How fast the networks run does not depend on what the images show.
"""

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import distill
from core.ingest_child import ingest
from distill.device import has_bf16
from distill.warm import warm
from stillhouse.spec import DataFacts, JobSpec, Limits, resolve
from stillhouse.spec.upload import IngestRequest

CLASSES, SIDE, BATCH, EPOCHS, LEARNING_RATE, TEMPERATURE = 10, 32, 128, 5, 0.005, 4.0
TEACHER: dict[str, Any] = {"name": "resnet", "depth": 18, "width": 64}
STUDENT: dict[str, Any] = {"name": "cnn", "channels": [16, 32, 64]}
_TAUGHT = 1024
_CARELESS = Limits(max_ingest_seconds=600)


def precisions() -> tuple[str, ...]:
    """Those this CPU has: elsewhere a job that asks for bf16 is one in fp32."""
    return ("fp32", "bf16") if has_bf16(torch.device("cpu")) else ("fp32",)


@dataclass(frozen=True)
class Workload:
    """A dataset and a teacher, stored as the service stores them."""

    dataset: Path
    teacher: Path
    facts: DataFacts
    arrays: Path
    """The same images for the other sides: .npz with x float32 [N, 3, 32, 32], standardised, and y int64 [N]."""


def make(folder: Path, *, rows: int, seed: int = 0) -> Workload:
    """Store a dataset of `rows` training rows, and a teacher trained for two epochs on a few more of their kind."""
    folder.mkdir(parents=True, exist_ok=True)
    x, y = images(rows + 2 * held_out(rows), seed=seed)
    facts = store(folder / "dataset.safetensors", x, y, rows=rows)
    train = x[:rows].transpose(0, 3, 1, 2).astype(np.float32)
    mean, std = train.mean((0, 2, 3), keepdims=True), train.std((0, 2, 3), keepdims=True)
    np.savez(folder / "arrays.npz", x=(train - mean) / std, y=y[:rows].astype(np.int64))
    taught = store(folder / "small.safetensors", *images(_TAUGHT + 2 * held_out(_TAUGHT), seed=seed), rows=_TAUGHT)
    teacher = train_teacher(folder / "small.safetensors", taught, folder / "teacher")
    return Workload(folder / "dataset.safetensors", teacher, facts, folder / "arrays.npz")


def held_out(rows: int) -> int:
    """Rows of the validation split, and of the test split: a sixteenth of the training rows."""
    return max(2, rows // 16)


def images(count: int, *, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """`count` images uint8 [n, 32, 32, 3] and their classes int64 [n]."""
    stream = np.random.default_rng(seed)
    coarse = stream.normal(size=(CLASSES, 8, 8, 3)).astype(np.float32)
    patterns = coarse.repeat(SIDE // 8, axis=1).repeat(SIDE // 8, axis=2)
    y = stream.integers(CLASSES, size=count)
    out = np.empty((count, SIDE, SIDE, 3), np.uint8)
    for start in range(0, count, 4096):
        part = y[start : start + 4096]
        shown = patterns[part] * stream.uniform(0.3, 1.0, size=(len(part), 1, 1, 1)).astype(np.float32)
        for row, (down, right) in enumerate(stream.integers(-4, 5, size=(len(part), 2))):
            shown[row] = np.roll(shown[row], (down, right), axis=(0, 1))
        shown += stream.normal(scale=0.8, size=shown.shape).astype(np.float32)
        out[start : start + len(part)] = np.clip(128 + 40 * shown, 0, 255).astype(np.uint8)
    return out, y


def store(path: Path, x: NDArray[np.uint8], y: NDArray[np.int64], *, rows: int) -> DataFacts:
    """Have the reader of uploads store the images at `path`: the first `rows` train, the rest is halved."""
    cuts = {
        "train": slice(rows),
        "validation": slice(rows, rows + held_out(rows)),
        "test": slice(rows + held_out(rows), None),
    }
    arrays = {f"{name}_{split}": values[cut] for split, cut in cuts.items() for name, values in (("x", x), ("y", y))}
    with tempfile.TemporaryDirectory() as scratch:
        np.savez(Path(scratch) / "images.npz", **arrays)
        stored = ingest(IngestRequest(source=f"{scratch}/images.npz", output=str(path), limits=_CARELESS))
    return stored.dataset.facts


def train_teacher(dataset: Path, facts: DataFacts, folder: Path) -> Path:
    """The folder of a ResNet-18 that has seen the data twice."""
    given = {
        "dataset": {"builtin": "digits"},
        "teacher": {"train": {"architecture": TEACHER, "epochs": 2, "learning_rate": 0.001, "precision": "bf16"}},
        "student": {"name": "mlp", "hidden": [4]},
        "training": {"epochs": 1},
        "evaluation": {"baseline": False},
        "export": {"onnx": False},
    }
    warm()
    with tempfile.TemporaryDirectory() as out:
        distill.run(
            resolve(JobSpec.model_validate(given), facts, Limits()), distill.RunIO(dataset, None, Path(out)), _silent
        )
        folder.mkdir()
        shutil.copyfile(f"{out}/teacher.safetensors", folder / "model.safetensors")
        shutil.copyfile(f"{out}/teacher.json", folder / "config.json")
    return folder


def spec(facts: DataFacts, *, precision: str, seed: int = 0) -> JobSpec:
    """The resolved spec of the job that is measured."""
    training = {"epochs": EPOCHS, "batch_size": BATCH, "learning_rate": LEARNING_RATE, "precision": precision}
    given = {
        "dataset": {"builtin": "digits"},  # the file is given beside the spec, and so is the teacher's folder
        "teacher": {"model": "mdl_00000000000000000000000000"},
        "student": STUDENT,
        "temperature": TEMPERATURE,
        "training": {**training, "seed": seed},
        "evaluation": {"baseline": False},
    }
    return resolve(JobSpec.model_validate(given), facts, Limits())


def _silent(event: object) -> None:
    """Nobody listens."""
