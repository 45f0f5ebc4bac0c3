"""What checkpoints cost: training that writes them against training that does not.

    python -m benchmarks.checkpoints

Both run in turn in one process. They are written once a second here, thirty times as often as in a job, so that there
is something to measure; the share of a job's time is that of one checkpoint in its own interval of 30 s, or of fifty
times what writing took where that is longer.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch

from benchmarks.reporting import digits, plain_stage
from distill.checkpoints import Checkpoints, Journal, Prints
from distill.data import Dataset, measure
from distill.lesson import Lesson
from distill.reporter import Reporter
from distill.students import build
from distill.train import fit
from stillhouse.spec.events import CheckpointSaved, TrainerEvent
from stillhouse.spec.losses import Ce
from stillhouse.spec.students import Architecture, Cnn, Resnet

NETWORKS: dict[str, tuple[Architecture, int]] = {
    "cnn 1-16-32-64-10": (Cnn(name="cnn"), 60),
    "resnet-18 width 64": (Resnet(name="resnet", depth=18, width=64), 1),
}
"""Architecture, and epochs of 40 steps in one turn."""


@dataclass
class Heard:
    """What the journal told."""

    sizes: list[int] = field(default_factory=list)
    spent: float = 0.0

    def take(self, event: TrainerEvent) -> None:
        if isinstance(event, CheckpointSaved):
            self.sizes.append(event.bytes)


class Timed(Journal):
    """Adds up the seconds that saving takes."""

    heard: Heard

    def save(self) -> None:
        begun = time.perf_counter()
        super().save()
        self.heard.spent += time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description="Cost of checkpoints as a share of training.")
    parser.add_argument("--pairs", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = digits()
    for name, (architecture, epochs) in NETWORKS.items():
        ratios, each, heard = [], [], Heard()
        for turn in range(options.pairs):
            took = {}
            for writes in (turn % 2 == 0, turn % 2 == 1):  # each side goes first every other time
                heard = Heard()
                took[writes] = cpu_seconds(data, architecture, epochs, heard, writes=writes)
                if writes and heard.sizes:
                    each.append(heard.spent / len(heard.sizes))
                    written = heard
            ratios.append(took[True] / took[False] - 1)
        one = statistics.median(each)
        print(
            f"{name:20} {written.sizes[-1] / 1e6:6.2f} MB, {one * 1e3:6.1f} ms each; "
            f"{len(written.sizes)} in a turn add {statistics.median(ratios):+.2%} CPU time (median of "
            f"{options.pairs} pairs); in a job {one / (max(30.0, 50 * one) + one):.3%} of the time"
        )


def cpu_seconds(data: Dataset, architecture: Architecture, epochs: int, heard: Heard, *, writes: bool) -> float:
    """CPU seconds of training for `epochs` epochs."""
    stage = plain_stage((Ce(kind="ce", weight=1.0),), epochs)
    torch.manual_seed(0)
    found = measure(data)
    net = build(architecture, data.facts, found.mean, found.std)
    reporter = Reporter(heard.take)
    with folder() as path:
        kept = Checkpoints(path, every_seconds=1.0) if writes else None
        journal = Timed(reporter, torch.device("cpu"), checkpoints=kept, prints=Prints("", path, "0" * 64, None, []))
        journal.heard = heard
        reporter.each_time(journal.look)
        begun = time.process_time()
        fit(net, [stage], data, None, reporter, Lesson(journal, "student", "student"))
        return time.process_time() - begun


@contextmanager
def folder() -> Iterator[Path]:
    """On the disk the working folder is on, not in memory."""
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as path:
        yield Path(path)


if __name__ == "__main__":
    main()
