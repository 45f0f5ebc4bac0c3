"""Which waiting job a free worker takes up: the policy, as pure functions on values.

A worker takes what it has the means for. Between projects the one with the fewest jobs at work comes first, and of two
with as many the one served longer ago. Within a project the job with the earliest turn comes first: the time of its
submission, earlier by an hour for each point of priority. So nobody waits for ever: a project that waits is served
before any other is served twice with as many jobs at work, and a job of low priority is overtaken by those alone that
are submitted within the hours its priority is lower.

A project at its limit of running jobs waits, and others pass it. Nothing that runs is interrupted.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from stillhouse.spec.job import JobSpec, priority_number
from stillhouse.spec.views import QueuePlace, WaitReason

_A_POINT = timedelta(hours=1)
"""What one point of priority is worth."""
_NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, kw_only=True, slots=True)
class Needs:
    """What a job asks of a worker's machine."""

    cuda: bool = False
    memory_bytes: int = 0

    def in_words(self) -> str:
        """`CUDA and 64 GB of memory`."""
        memory = f"{self.memory_bytes / 1e9:g} GB of memory" if self.memory_bytes else ""
        return " and ".join(filter(None, ["CUDA" if self.cuda else "", memory]))


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """What a worker has."""

    cuda: bool
    memory_bytes: int
    cores: int

    def meets(self, needs: Needs) -> bool:
        """True when the job can run here."""
        return self.memory_bytes >= needs.memory_bytes and (self.cuda or not needs.cuda)


@dataclass(frozen=True, kw_only=True, slots=True)
class Waiting:
    """A job that waits."""

    job_id: str
    project_id: str
    turn_at: datetime
    not_before: datetime
    needs: Needs = Needs()


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """What a project has had so far."""

    running: int = 0
    """Jobs workers hold."""
    served_at: datetime | None = None
    """When a worker last took up one of its jobs."""
    limit: int | None = None
    """Jobs it may have at work, when an operator has set that for it alone."""

    def may_run(self, limit: int) -> int:
        """Jobs it may have at work, where others may have `limit`."""
        return limit if self.limit is None else self.limit


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """A job in its order."""

    job: Waiting
    over_limit: bool
    """Its project would have more jobs at work than it may, so it waits for the end of one of them."""


_NOTHING = Share()


def turn_at(spec: JobSpec, submitted_at: datetime) -> datetime:
    """The job's place among those of its project."""
    return submitted_at - priority_number(spec.priority) * _A_POINT


def needs_of(spec: JobSpec) -> Needs:
    """What a spec asks of a machine."""
    memory = spec.resources.memory_gb
    return Needs(cuda=spec.resources.device == "cuda", memory_bytes=0 if memory is None else round(memory * 1e9))


def choose(
    waiting: Iterable[Waiting], shares: Mapping[str, Share], machine: Machine, *, now: datetime, limit: int
) -> Waiting | None:
    """The job a free worker takes up now; None when there is nothing it may."""
    able = [job for job in waiting if job.not_before <= now and machine.meets(job.needs)]
    first = next(iter(in_turn(able, shares, limit=limit)), None)
    return None if first is None or first.over_limit else first.job


def in_turn(waiting: Iterable[Waiting], shares: Mapping[str, Share], *, limit: int) -> list[Turn]:
    """All in the order in which they are taken up when nothing ends and nothing is added; those over the limit last."""
    keyed = []
    for project_id, jobs in _by_project(waiting).items():
        share = shares.get(project_id, _NOTHING)
        for index, job in enumerate(sorted(jobs, key=lambda job: (job.turn_at, job.job_id))):
            turn = Turn(job=job, over_limit=share.running + index >= share.may_run(limit))
            # Of projects with as many jobs at work, one that has more already was served less on the way there.
            before = (share.running + index, -share.running, share.served_at or _NEVER, project_id)
            keyed.append((turn.over_limit, before, turn))
    return [turn for _, _, turn in sorted(keyed, key=lambda item: item[:2])]


def places(
    waiting: Sequence[Waiting],
    shares: Mapping[str, Share],
    *,
    free: Sequence[Machine],
    busy: Sequence[Machine],
    now: datetime,
    limit: int,
) -> dict[str, QueuePlace]:
    """Job id → its position and why it waits. Those nothing but a free worker is missing for come first."""
    machines = [*free, *busy]
    stuck = {job.job_id: reason for job in waiting if (reason := _obstacle(job, machines, now))}
    turns = in_turn((job for job in waiting if job.job_id not in stuck), shares, limit=limit)
    turns += in_turn((job for job in waiting if job.job_id in stuck), shares, limit=limit)
    out = {}
    for position, turn in enumerate(turns, 1):
        job = turn.job
        if (reason := stuck.get(job.job_id)) is None:
            share = shares.get(job.project_id, _NOTHING)
            reason = _delay(turn, position, free=free, running=share.running, limit=share.may_run(limit))
        out[job.job_id] = QueuePlace(position=position, reason=reason[0], detail=reason[1])
    return out


def _by_project(waiting: Iterable[Waiting]) -> dict[str, list[Waiting]]:
    out: dict[str, list[Waiting]] = {}
    for job in waiting:
        out.setdefault(job.project_id, []).append(job)
    return out


def _obstacle(job: Waiting, machines: Sequence[Machine], now: datetime) -> tuple[WaitReason, str] | None:
    """What is in the way besides other jobs."""
    if job.not_before > now:
        return "retry_pause", f"A pause until {job.not_before:%Y-%m-%d %H:%M:%S} UTC before the next attempt."
    if not machines:
        return "no_worker", "No worker is running; the job waits until one is."
    if not any(machine.meets(job.needs) for machine in machines):
        return "no_fitting_worker", f"No worker that is running has {job.needs.in_words()}; the job waits for one."
    return None


def _delay(turn: Turn, position: int, *, free: Sequence[Machine], running: int, limit: int) -> tuple[WaitReason, str]:
    if turn.over_limit:
        now = f"The project has {running} at work and may have {limit} at once"
        return "project_limit", f"{now}." if running >= limit else f"{now}; others of its jobs come first."
    if position <= len(free) and any(machine.meets(turn.job.needs) for machine in free):
        return "starting", "A worker takes it up in a moment."
    return "workers_busy", "All workers that could take it up are at work on other jobs."
