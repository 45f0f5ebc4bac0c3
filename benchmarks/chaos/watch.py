"""Looking at a service from outside while it is hurt: does what it says of its jobs stay true?"""

import threading
import time
from collections import Counter
from dataclasses import dataclass, field

from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError

from benchmarks.chaos.house import House
from models.artifact import ArtifactRow
from models.job import JobRow
from models.model import ModelRow
from stillhouse.spec.states import ACTIVE, JobStatus


@dataclass
class Verdict:
    """What came of one kind of fault."""

    tried: int = 0
    """Faults done."""
    jobs: int = 0
    right: int = 0
    """Jobs that ended in the state they should, with one student. Files are counted in the record, not read."""
    identical: int = 0
    """Of those that should have a student: with the weights of an undisturbed run, bit for bit."""
    compared: int = 0
    untrue_seconds: float | None = None
    """Longest time a job was called running while no process was there for it, a frozen one counted as there; None: not
    watched."""
    wrong: list[str] = field(default_factory=list)
    """What went wrong, in words."""
    notes: list[str] = field(default_factory=list)


class Watch:
    """Reads the record about four times a second, beside the trainers that live."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._since: dict[str, float] = {}
        self.longest = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look_forever, daemon=True)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _look_forever(self) -> None:
        database = self._house.database()
        try:
            while not self._stop.wait(0.25):
                try:
                    with database.read() as session:
                        query = select(JobRow.id).where(JobRow.status.in_(ACTIVE))
                        called_running = set(session.scalars(query))
                except SQLAlchemyError:
                    continue  # the record is away: nobody can be told anything untrue
                self._compare(called_running, set(self._house.trainers().values()))
        finally:
            database.close()

    def _compare(self, called_running: set[str], worked_on: set[str]) -> None:
        now = time.monotonic()
        idle = called_running - worked_on
        self._since = {job_id: self._since.get(job_id, now) for job_id in idle}
        self.longest = max([self.longest, *(now - since for since in self._since.values())])


def judge(
    house: House, job_ids: list[str], verdict: Verdict, *, weights: str | None, wanted: str = "succeeded"
) -> None:
    """Add to `verdict` how these jobs ended. `weights` is the student's digest of an undisturbed run."""
    database = house.database()
    try:
        with database.read() as session:
            for job_id in job_ids:
                row = session.get(JobRow, job_id)
                students = session.scalars(
                    select(ModelRow.sha256).where(ModelRow.job_id == job_id, ModelRow.role == "student")
                ).all()
                artifacts = session.execute(
                    select(func.count(), func.count(ArtifactRow.name.distinct())).where(ArtifactRow.job_id == job_id)
                ).one()
                _judge_one(job_id, row, list(students), tuple(artifacts), verdict, weights=weights, wanted=wanted)
    finally:
        database.close()


def _judge_one(
    job_id: str,
    row: JobRow | None,
    students: list[str],
    artifacts: tuple[int, int],
    verdict: Verdict,
    *,
    weights: str | None,
    wanted: str,
) -> None:
    verdict.jobs += 1
    if row is None:
        verdict.wrong.append(f"{job_id} is lost")
        return
    expected = 1 if wanted == JobStatus.SUCCEEDED else 0
    if row.status != wanted:
        verdict.wrong.append(f"{job_id} is {row.status}, not {wanted}: {row.error}")
        return
    if len(students) != expected or artifacts[0] != artifacts[1]:
        verdict.wrong.append(f"{job_id} has {len(students)} students and {artifacts} artifacts")
        return
    verdict.right += 1
    if weights is not None and students:
        verdict.compared += 1
        if students[0] == weights:
            verdict.identical += 1
        else:
            verdict.wrong.append(f"{job_id} ended with other weights after {row.attempt} attempts")


def statuses(house: House) -> Counter[str]:
    """How many jobs have each status."""
    database = house.database()
    try:
        with database.read() as session:
            rows = session.execute(select(JobRow.status, func.count()).group_by(JobRow.status))
            return Counter({row[0]: row[1] for row in rows})
    finally:
        database.close()
