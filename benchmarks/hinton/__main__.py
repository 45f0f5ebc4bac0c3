"""Hinton, Vinyals and Dean 2015 §3 on the full MNIST, paper and ours side by side.

    python -m benchmarks.hinton [--folder build/hinton] [--processes 2] [--held-out]

The teacher is trained first and beside it those that learn from labels, then its students, each job in one thread and
`--processes` of them at a time. A job that has run in `--folder` is not run again, so a broken run is taken up where it
stood.
"""

import argparse
import json
import multiprocessing
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from benchmarks.hinton import mnist, protocol, unseen
from benchmarks.hinton.figures import Unseen, figures, table
from benchmarks.hinton.jobs import Found, run, teacher_folder
from benchmarks.hinton.mnist import Images
from benchmarks.hinton.protocol import SEEDS, Job
from distill.device import has_bf16
from stillhouse.spec import DataFacts

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "hinton.json"


@dataclass(frozen=True)
class Data:
    """The images, and the stored files the jobs read."""

    train: Images
    test: Images
    files: Mapping[str, tuple[Path, DataFacts]]
    """By the name a job gives its images."""


def prepare(folder: Path, held_out: bool) -> Data:
    """Fetch MNIST and store the three transfer sets."""
    train, test = mnist.fetch(folder)
    if held_out:
        train, test = mnist.hold_out(train, 10_000)
    digits = tuple(range(10))
    sets = {"all": digits, "without 3": tuple(d for d in digits if d != 3), "only 7 and 8": (7, 8)}
    paths = {name: folder / f"{name}.safetensors" for name in sets}
    return Data(train, test, {n: (paths[n], mnist.store(paths[n], train.only(d), test)) for n, d in sets.items()})


def run_all(data: Data, folder: Path, processes: int) -> Iterator[Found]:
    """Run every job, some at a time, and say what each found as soon as it has."""
    teacher, students = protocol.teacher(), list(protocol.students())
    total = 1 + len(students)
    # Spawned: torch's threads do not survive a fork.
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:

        def begun(jobs: Iterable[Job], model: Path | None) -> set[Future[Found]]:
            return {pool.submit(run, job, *data.files[job.images], model, folder / job.name, 1) for job in jobs}

        waiting = begun([teacher], None) | begun((job for job in students if not job.taught), None)
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for found in (future.result() for future in done):
                if found.name == teacher.name:
                    model = teacher_folder(folder / teacher.name / "files", folder / "teacher model")
                    waiting |= begun((job for job in students if job.taught), model)
                total -= 1
                print(f"  {_said(found)}, {found.seconds:.0f} s; {total} to go", flush=True)
                yield found


def _said(found: Found) -> str:
    errors = found.teacher_errors if found.name == "teacher" else found.errors
    return f"{found.name}: {errors} errors"


def main() -> None:
    """Run the section and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "hinton")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument(
        "--held-out", action="store_true", help="train on 50,000 images and measure on the other 10,000"
    )
    given = parser.parse_args()
    if not has_bf16(torch.device("cpu")):
        print(
            "This CPU has no instructions for bf16: all jobs run in fp32, and take several times as long.", flush=True
        )
    start = time.perf_counter()
    folder = given.folder / ("held out" if given.held_out else "full")
    folder.mkdir(parents=True, exist_ok=True)
    data = prepare(folder, given.held_out)
    found = {f.name: f for f in run_all(data, folder, given.processes)}

    def corrected(name: str, classes: tuple[int, ...]) -> list[unseen.Correction]:
        share = unseen.share_of(classes, data.train)
        folders = [folder / f"{name} {seed}" / "files" for seed in SEEDS]
        return [unseen.correct(student, classes, share, data.train, data.test) for student in folders]

    plain, from_mean = (
        Unseen(corrected(f"{kind} without 3", (3,)), corrected(f"{kind} only 7 and 8", (7, 8)))
        for kind in ("soft", "soft mean")
    )
    rows = list(figures(found, plain, from_mean, int((data.test.y == 3).sum())))
    print(table(rows))
    print(
        f"{(time.perf_counter() - start) / 60:.0f} minutes, {sum(f.seconds for f in found.values()) / 60:.0f} of jobs"
    )
    if not given.held_out:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps([asdict(row) for row in rows], indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
