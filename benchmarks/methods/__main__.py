"""Each distillation method on MNIST with few labels: beside the labels, and beside kd and the labels.

    python -m benchmarks.methods [--folder build/methods] [--seeds 5] [--methods kd fitnet …]
    python -m benchmarks.methods --choose [--factors 1 0.1 …] [--methods …]

Prints mean ± standard deviation of the test accuracy over the seeds and, paired by seed, the differences to the student
alone and to `kd`. With --choose it prints what the default weights were chosen by instead: accuracy on held-out
training images with each loss at its usual weight times each factor. One job at a time, in one thread. What has run in
`--folder` is not run again, so a broken run is taken up where it stood.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import mean

from benchmarks.methods.conditions import ALONE, Condition, conditions, of_method
from benchmarks.methods.jobs import Jobs
from benchmarks.methods.setting import CHOOSING_SEEDS, SEEDS, prepare
from benchmarks.methods.table import Row, table
from stillhouse.spec.losses import LOSSES

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "methods.json"

_SHARES_OF_KD = (0.98, 0.9, 0.7, 0.5)  # what is left belongs to ce


def main() -> None:
    """Print the table, or what the weights were chosen by."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "methods")
    parser.add_argument("--seeds", type=int, choices=range(2, len(SEEDS) + 1), default=len(SEEDS), metavar="2 … 5")
    parser.add_argument("--methods", nargs="+", help="these alone, beside the two they are held against")
    parser.add_argument("--choose", action="store_true", help="sweep the weights on held-out training images")
    parser.add_argument("--factors", type=float, nargs="+", default=[1.0, 0.1, 0.01])
    given = parser.parse_args()
    wanted = [c for c in conditions() if given.methods is None or c.method in (ALONE, "kd", *given.methods)]
    if missing := set(given.methods or ()) - {c.method for c in wanted}:
        parser.error(f"no such method: {', '.join(sorted(missing))}; there are {_names()}")
    jobs = Jobs(prepare(given.folder))
    if given.choose:
        choose(jobs, wanted, given.factors)
        return
    rows = [measure(jobs, condition, SEEDS[: given.seeds]) for condition in wanted]
    print(table(rows))
    if given.methods is None and given.seeds == len(SEEDS):
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


def measure(jobs: Jobs, condition: Condition, seeds: Sequence[int]) -> Row:
    """One row of the table."""
    found = [jobs.accuracy(condition, seed, choosing=False) for seed in seeds]
    shown = ", ".join(f"{one.accuracy:.2%}" for one in found)
    print(f"  {condition.name}: {shown}; {sum(one.seconds for one in found):.0f} s", flush=True)
    return Row(condition.method, condition.family, condition.beside, tuple(one.accuracy for one in found))


def choose(jobs: Jobs, wanted: Sequence[Condition], factors: Sequence[float]) -> None:
    """Print accuracies on held-out images by weight, over seeds that are never reported."""
    for condition in (c for c in wanted if c.method not in LOSSES):
        print(f"{condition.name}: {_held_out(jobs, condition)}", flush=True)
    for share in _SHARES_OF_KD:
        losses = ({"kind": "kd", "weight": share}, {"kind": "ce", "weight": round(1 - share, 2)})
        print(f"kd × {share:g}: {_held_out(jobs, Condition('kd', '', 'ce', losses))}", flush=True)
    for kind in dict.fromkeys(c.method for c in wanted if c.method in LOSSES and c.method != "kd"):
        for factor in factors:
            weight = LOSSES[kind].usual_weight * factor
            ways = of_method(kind, "", weight)
            shown = "; ".join(f"beside {w.beside} {_held_out(jobs, w)}" for w in ways)
            print(f"{kind} × {weight:g}: {shown}", flush=True)


def _held_out(jobs: Jobs, condition: Condition) -> str:
    found = [jobs.accuracy(condition, seed, choosing=True).accuracy for seed in CHOOSING_SEEDS]
    return f"{mean(found):.2%} ({', '.join(f'{one:.2%}' for one in found)})"


def _names() -> str:
    return ", ".join(dict.fromkeys(c.method for c in conditions()))


if __name__ == "__main__":
    main()
