"""What reporting costs: training that sends every report as JSON down a pipe, against training that reports nothing.

    python benchmarks/reporting.py

Both run in turn in one process and are compared in CPU time, so that waiting for other work does not count.
"""

import argparse
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file
from sklearn.datasets import load_digits
from torch import Tensor

from distill import course, train
from distill.data import Dataset, measure, read_dataset
from distill.reporter import Reporter
from distill.stages import Stage
from distill.students import build
from distill.taps import Outputs
from distill.train import Teaching
from stillhouse.spec import DataFacts, DataReport, StoredDataset
from stillhouse.spec.events import TrainerEvent
from stillhouse.spec.losses import Ce, Kd, Loss
from stillhouse.spec.report import StageTime
from stillhouse.spec.states import Phase
from stillhouse.spec.students import Cnn, Mlp
from stillhouse.spec.training import Augmentation

GATHERS = course.Sums
ARCHITECTURES = {
    "mlp 64-32-10": Mlp(name="mlp", hidden=(32,)),
    "mlp 64-256-256-10": Mlp(name="mlp", hidden=(256, 256)),
    "cnn 1-16-32-64-10": Cnn(name="cnn"),
}


class Silence(Reporter):
    """Says nothing and looks at no clock."""

    def __init__(self) -> None:
        super().__init__(lambda event: None)

    @contextmanager
    def phase(self, *args: object, **kwargs: object) -> Iterator[None]:  # type: ignore[override]
        yield

    def spent(self) -> StageTime:
        return StageTime(phase=Phase.DISTILLING, seconds=0.0)

    def due(self) -> bool:
        return False

    next_stage = advance = measured = lambda self, *args, **kwargs: None  # type: ignore[assignment]


class NoSums:
    """Stands in for the gathering of losses."""

    def __init__(self, *given: object, **named: object) -> None: ...

    def go_on(self, *given: object) -> None: ...

    def add(self, parts: dict[str, Tensor], rows: int) -> None: ...

    def means(self, epoch: int) -> dict[str, float]:
        return {}


def main() -> None:
    parser = argparse.ArgumentParser(description="Cost of reporting as a share of a training step.")
    parser.add_argument("--pairs", type=int, default=25)
    parser.add_argument("--epochs", type=int, default=25, help="of 40 steps each")
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = digits()
    reader = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    assert reader.stdin is not None
    pipe = reader.stdin

    def send(event: TrainerEvent) -> None:
        pipe.write(event.model_dump_json().encode() + b"\n")
        pipe.flush()

    for name, architecture in ARCHITECTURES.items():
        silent, told = [], []
        for turn in range(options.pairs):
            for speaks in (turn % 2 == 0, turn % 2 == 1):  # each side goes first every other time
                reporter, sums = (Reporter(send), GATHERS) if speaks else (Silence(), NoSums)
                took = seconds_per_step(data, architecture, reporter, sums, options.epochs)
                (told if speaks else silent).append(took)
        # The quarter least disturbed by whatever else the machine does.
        quiet = [statistics.quantiles(times, n=4)[0] for times in (silent, told)]
        middle = statistics.median(b / a - 1 for a, b in zip(silent, told, strict=True))
        print(
            f"{name:20} {quiet[0] * 1e6:6.0f} µs a step; reporting adds {quiet[1] / quiet[0] - 1:+.2%} "
            f"(lower quartiles; median of {options.pairs} pairs {middle:+.2%})"
        )
    pipe.close()
    reader.wait()


def seconds_per_step(data: Dataset, architecture: Mlp | Cnn, reporter: Reporter, sums: type, epochs: int) -> float:
    """CPU seconds of one optimizer step of a distillation over `epochs` epochs."""
    for user in (course, train):
        setattr(user, "Sums", sums)  # noqa: B010 - both make them
    soft = (Kd(kind="kd", temperature=4.0, weight=0.9), Ce(kind="ce", weight=0.1))
    torch.manual_seed(0)
    statistics_ = measure(data)
    net = build(architecture, data.facts, statistics_.mean, statistics_.std)
    teacher = torch.randn(len(data.rows["train"]), 10)
    begun = time.process_time()
    train.fit(
        net, [plain_stage(soft, epochs)], data, Teaching(lambda batch, x, epoch: Outputs(teacher[batch])), reporter
    )
    return (time.process_time() - begun) / (epochs * 40)


def plain_stage(losses: tuple[Loss, ...], epochs: int) -> Stage:
    """Batches of 32, AdamW with 0.003 on a cosine, nothing else."""
    return Stage(
        phase=Phase.DISTILLING,
        stream="student",
        losses=losses,
        epochs=epochs,
        batch_size=32,
        optimizer="adamw",
        learning_rate=0.003,
        weight_decay=0.01,
        momentum=0.0,
        schedule="cosine",
        warmup_epochs=0.0,
        precision="fp32",
        augmentation=Augmentation(),
        seed=0,
        early_stopping=None,
    )


def digits() -> Dataset:
    """1,257 training rows of scikit-learn's digits and no validation split: scoring is work, not reporting."""
    x, y = load_digits(return_X_y=True)
    split = np.where(np.arange(len(y)) < 1257, 0, 2).astype(np.uint8)
    facts = DataFacts(
        task="image-classification",
        shape=(1, 8, 8),
        dtype="uint8",
        classes=tuple("0123456789"),
        rows={"train": 1257, "validation": 0, "test": 540},
    )
    report = DataReport(rows_read=1797, rows_kept=1797, rows_dropped=0, class_counts={})
    header = StoredDataset(facts=facts, report=report).model_dump_json()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "digits.safetensors"
        pixels = x.reshape(-1, 1, 8, 8).astype(np.uint8)
        save_file({"x": pixels, "y": y.astype(np.int64), "split": split}, path, {"stillhouse": header})
        return read_dataset(path)


if __name__ == "__main__":
    main()
