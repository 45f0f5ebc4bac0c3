"""Hurt a running service in every way that is known, and print what came of its jobs.

    python -m benchmarks.chaos [--database sqlite,postgres] [--only kills,…] [--scale 1] [--seed 0]

Each line is one kind of fault on one database: how many were tried, how many jobs there were, how many ended in the
state they should, with one student (files are counted in the record, not read), how many of those compared have the
very weights of an undisturbed run, and, where it is watched, the longest time a job was called running while no
process was there (at most 60 s; with the leases of 3 s used here some seconds; a frozen one counts). Everything
is real: Valkey, SQLite or PostgreSQL, API, two workers, reconciler.
"""

import argparse
import contextlib
import json
import os
import random
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.chaos import faults
from benchmarks.chaos.house import House, house
from benchmarks.chaos.soak import soak
from benchmarks.chaos.watch import Verdict

Trial = Callable[[House, int, random.Random, Verdict], None]
_PLAIN: dict[str, tuple[Trial, int]] = {
    "kills": (faults.kills, 100),
    "freezes": (faults.freezes, 20),
    "terminations": (faults.terminations, 10),
    "broker-kills": (faults.broker_kills, 20),
    "broker-flushes": (faults.broker_flushes, 10),
    "api-kills": (faults.api_kills, 10),
    "out-of-memory": (faults.out_of_memory, 10),
    "submitters": (faults.submitters, 200),
    "messages": (faults.messages, 200),
}
_DISK_MB = 8
_SOAK_JOBS = 500
_NAMES = [*_PLAIN, "database-restarts", "full-disk", "soak"]


def main() -> None:
    """Try what is asked for and print the table."""
    given = _arguments()
    print(f"{'fault':20} {'database':9} {'tried':>5} {'jobs':>5} {'right':>5} {'same bits':>10} {'untrue':>7}  seconds")
    wrong = 0
    for name in given.only.split(","):
        for kind in given.database.split(","):
            wrong += _try(name, kind, given)
    raise SystemExit(1 if wrong else 0)


def _try(name: str, kind: str, given: argparse.Namespace) -> int:
    verdict, begun = Verdict(), time.monotonic()
    try:
        _trial(name, kind, given, verdict)
    except Exception as error:  # noqa: BLE001 - one trial that cannot go on is one line of the table
        verdict.wrong.append(f"the trial ended early: {type(error).__name__}: {error}")
    same = f"{verdict.identical}/{verdict.compared}" if verdict.compared else "–"
    untrue = "–" if verdict.untrue_seconds is None else f"{verdict.untrue_seconds:.1f}s"
    print(
        f"{name:20} {kind:9} {verdict.tried:5} {verdict.jobs:5} {verdict.right:5} {same:>10} "
        f"{untrue:>7} {time.monotonic() - begun:7.0f}",
        flush=True,
    )
    for line in verdict.notes[:3]:
        print(f"    {line}", flush=True)
    for line in verdict.wrong[:10]:
        print(f"    WRONG: {line}", flush=True)
    if given.json is not None:
        with given.json.open("a") as file:
            file.write(json.dumps({"fault": name, "database": kind, **vars(verdict)}) + "\n")
    return len(verdict.wrong)


def _trial(name: str, kind: str, given: argparse.Namespace, verdict: Verdict) -> None:
    dice = random.Random(f"{given.seed} {name} {kind}")
    with contextlib.ExitStack() as stack:
        storage = stack.enter_context(_small_disk()) if name == "full-disk" else None
        service, server = stack.enter_context(house(kind, storage=storage))
        if name == "full-disk":
            assert storage is not None
            faults.full_disk(service, _times(10, given), dice, verdict, storage)
        elif name == "soak":
            soak(service, _times(_SOAK_JOBS, given), verdict)
        elif name == "database-restarts":
            faults.database_restarts(service, _times(10, given), dice, verdict, server)
        else:
            trial, times = _PLAIN[name]
            trial(service, _times(times, given), dice, verdict)


def _times(usual: int, given: argparse.Namespace) -> int:
    return max(1, round(usual * given.scale))


@contextlib.contextmanager
def _small_disk() -> Iterator[Path]:
    """A file system of a few megabytes. Mounting one is root's."""
    if os.geteuid() != 0:
        raise PermissionError("only root can mount the small file system of this trial")
    with tempfile.TemporaryDirectory(prefix="chaos-disk-") as name:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={_DISK_MB}m", "tmpfs", name], check=True)
        try:
            yield Path(name)
        finally:
            subprocess.run(["umount", "--lazy", name], check=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database", default="sqlite,postgres")
    parser.add_argument("--only", default=",".join(_NAMES), help=f"of {', '.join(_NAMES)}")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the usual number of faults")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="a file to add a line a trial to")
    return parser.parse_args()


if __name__ == "__main__":
    main()
