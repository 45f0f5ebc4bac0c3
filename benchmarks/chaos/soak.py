"""Five hundred tiny jobs, one after the other through two workers: does anything grow?"""

import contextlib
import os
from collections import Counter
from dataclasses import dataclass

import psutil
from sqlalchemy import func, select

from benchmarks.chaos.faults import TINY
from benchmarks.chaos.house import House, until
from benchmarks.chaos.watch import Verdict, judge, statuses
from models.tables import metadata

_SETTLED = 0.2
"""Share of the jobs after which caches are warm and growth is counted."""


@dataclass(frozen=True)
class Size:
    """What there was at one moment."""

    memory_mb: dict[str, float]
    """Resident, of each part of the service with all it started. Pages shared by two count twice: a process forked from
    another unshares them little by little, which takes memory up to these figures and no further."""
    files: int
    """Open files of all processes."""
    rows: int
    temporary: int
    """Files in working folders, caches apart."""


def soak(house: House, times: int, verdict: Verdict) -> None:
    """Run the jobs, a few waiting at any time, and add what grew to `verdict`."""
    made: list[str] = []
    first: tuple[int, Size] | None = None
    while len(made) < times:
        until(lambda: _open(house) < 8, "jobs end", seconds=300)
        made.append(house.client.jobs.create(TINY).id)
        verdict.tried += 1
        if first is None and len(made) >= times * _SETTLED:
            until(lambda: _open(house) == 0, "all jobs end", seconds=300)
            first = (len(made), _measure(house))
    until(lambda: _open(house) == 0, "all jobs end", seconds=300)
    judge(house, made, verdict, weights=None)
    assert first is not None
    (count, early), late = first, _measure(house)
    a_job = (late.rows - early.rows) / (times - count)
    verdict.notes.append(
        f"from job {count} to {times}: {_grown(early, late)}; open files {early.files} to {late.files}, temporary "
        f"files {early.temporary} to {late.temporary}, {a_job:.1f} rows a job ({early.rows / count:.1f} before)"
    )


def _grown(early: Size, late: Size) -> str:
    return "memory of " + ", ".join(
        f"{name} {mb:.0f} to {late.memory_mb[name]:.0f} MB" for name, mb in early.memory_mb.items()
    )


def _open(house: House) -> int:
    found = statuses(house)
    return sum(found.values()) - found["succeeded"] - found["failed"] - found["cancelled"]


def _measure(house: House) -> Size:
    until(lambda: not house.trainers(), "trainers end")
    parts = {"API": house.api, **{f"worker {n}": part for n, part in enumerate(house.workers)}}
    memory, files = Counter[str](), 0
    for name, part in (parts | {"reconciler": house.reconciler}).items():
        for member in part.family:
            with contextlib.suppress(psutil.NoSuchProcess):
                memory[name] += member.memory_info().rss / 1e6
                files += member.num_fds()
    database = house.database()
    try:
        with database.read() as session:
            rows = sum(
                session.execute(select(func.count()).select_from(t)).scalar_one() for t in metadata.sorted_tables
            )
    finally:
        database.close()
    folders = [house.work_dir / name for name in ("attempts", "uploads")]
    temporary = sum(len(names) + len(below) for folder in folders for _, below, names in os.walk(folder))
    return Size(dict(memory), files, rows, temporary)
