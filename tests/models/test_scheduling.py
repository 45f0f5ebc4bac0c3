"""Whose turn it is: the policy alone, on values."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.scheduling import Machine, Needs, Share, Waiting, choose, in_turn, needs_of, places, turn_at
from stillhouse.spec.job import JobSpec

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
PLAIN = Machine(cuda=False, memory_bytes=8 * 10**9, cores=2)
GPU = Machine(cuda=True, memory_bytes=64 * 10**9, cores=8)


def spec(**changes: Any) -> JobSpec:
    plain = {"teacher": {"train": {"architecture": {"name": "mlp"}}}, "dataset": {"builtin": "digits"}}
    return JobSpec.model_validate(plain | {"student": {"name": "mlp"}} | changes)


def waits(name: str, *, hours: float = 0, pause: float = 0, needs: Needs | None = None) -> Waiting:
    """`a1` is a job of project a, whose turn is `hours` before noon."""
    turn, start = NOW - timedelta(hours=hours), NOW + timedelta(minutes=pause)
    return Waiting(job_id=name, project_id=name[0], turn_at=turn, not_before=start, needs=needs or Needs())


def served(running: int = 0, *, minutes_ago: float | None = None) -> Share:
    at = None if minutes_ago is None else NOW - timedelta(minutes=minutes_ago)
    return Share(running=running, served_at=at)


CASES: dict[str, tuple[list[Waiting], dict[str, Share], str | None]] = {
    "nobody waits": ([], {}, None),
    "the older first": ([waits("a2"), waits("a1", hours=1)], {}, "a1"),
    "of two as old the one with the smaller id": ([waits("a2"), waits("a1")], {}, "a1"),
    "the project with fewer jobs at work, whatever waits longer": (
        [waits("a1", hours=50), waits("b1")],
        {"a": served(2), "b": served(1)},
        "b1",
    ),
    "of two with as many the one served longer ago": (
        [waits("a1", hours=50), waits("b1")],
        {"a": served(1, minutes_ago=1), "b": served(1, minutes_ago=2)},
        "b1",
    ),
    "one never served before one that was": (
        [waits("a1", hours=50), waits("b1")],
        {"a": served(minutes_ago=900)},
        "b1",
    ),
    "a project at its limit is passed": ([waits("a1"), waits("b1")], {"a": served(3), "b": served(3)}, None),
    "one below it is not": ([waits("a1"), waits("b1")], {"a": served(3), "b": served(2)}, "b1"),
    "a job that pauses is passed": ([waits("a1", hours=1, pause=5), waits("a2")], {}, "a2"),
    "a job this machine is not made for is passed": (
        [waits("a1", hours=2, needs=Needs(cuda=True)), waits("a2", hours=1, needs=Needs(memory_bytes=9 * 10**9))],
        {},
        None,
    ),
    "one that just fits is not": ([waits("a2", needs=Needs(memory_bytes=8 * 10**9))], {}, "a2"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_free_worker_takes_up(case: str) -> None:
    waiting, shares, expected = CASES[case]
    chosen = choose(waiting, shares, PLAIN, now=NOW, limit=3)
    assert (None if chosen is None else chosen.job_id) == expected


@pytest.mark.parametrize(
    ("priority", "hours"), [("low", -10), ("normal", 0), ("high", 10), (3, 3), (-100, -100), (100, 100)]
)
def test_a_point_of_priority_is_worth_an_hour_of_waiting(priority: object, hours: int) -> None:
    assert NOW - turn_at(spec(priority=priority), NOW) == timedelta(hours=hours)


def test_a_job_of_low_priority_is_overtaken_for_so_many_hours_and_no_longer() -> None:
    low = replace(waits("a1"), turn_at=turn_at(spec(priority="low"), NOW))
    for later, first in ((9, "a2"), (11, "a1")):
        normal = replace(waits("a2"), turn_at=turn_at(spec(), NOW + timedelta(hours=later)))
        chosen = choose([low, normal], {}, PLAIN, now=NOW + timedelta(hours=later), limit=3)
        assert chosen is not None
        assert chosen.job_id == first


def test_a_spec_says_what_it_needs() -> None:
    assert needs_of(spec()) == Needs()
    assert needs_of(spec(resources={"device": "cpu"})) == Needs()
    wanted = needs_of(spec(resources={"device": "cuda", "memory_gb": 2.5}))
    assert wanted == Needs(cuda=True, memory_bytes=2_500_000_000)
    assert wanted.in_words() == "CUDA and 2.5 GB of memory"


def place(name: str, waiting: list[Waiting], shares: dict[str, Share] | None = None, **changes: Any) -> tuple[int, str]:
    given: dict[str, Any] = {"free": [], "busy": [PLAIN], "now": NOW, "limit": 2} | changes
    found = places(waiting, shares or {}, **given)
    assert sorted(place.position for place in found.values()) == list(range(1, len(waiting) + 1))
    return found[name].position, found[name].reason


def test_each_reason_for_waiting_is_told() -> None:
    cuda = waits("a1", needs=Needs(cuda=True))
    assert place("a1", [waits("a1")], free=[PLAIN]) == (1, "starting")
    assert place("a2", [waits("a1", hours=1), waits("a2")], free=[PLAIN]) == (2, "workers_busy")
    assert place("a1", [waits("a1")]) == (1, "workers_busy")
    assert place("a1", [cuda], free=[PLAIN], busy=[GPU]) == (1, "workers_busy")
    assert place("a1", [waits("a1")], {"a": served(2)}, free=[PLAIN]) == (1, "project_limit")
    assert place("a3", [waits("a1", hours=2), waits("a2", hours=1), waits("a3")]) == (3, "project_limit")
    assert place("a1", [waits("a1")], busy=[]) == (1, "no_worker")
    assert place("a1", [cuda], free=[PLAIN]) == (1, "no_fitting_worker")
    assert place("a1", [waits("a1", pause=5)], free=[PLAIN]) == (1, "retry_pause")


def test_those_that_a_free_worker_would_not_help_stand_behind_the_others() -> None:
    cuda, paused, plain = waits("a1", hours=9, needs=Needs(cuda=True)), waits("b1", hours=8, pause=1), waits("b2")
    assert place("b2", [cuda, paused, plain]) == (1, "workers_busy")
    over_limit = waits("c1", hours=7)
    shares = {"c": served(2)}
    assert place("c1", [cuda, paused, plain, over_limit], shares) == (2, "project_limit")


MOMENTS = st.integers(0, 60).map(lambda minutes: NOW - timedelta(minutes=minutes))
SHARES = st.builds(Share, running=st.integers(0, 4), served_at=st.none() | MOMENTS)
NEEDS = st.builds(Needs, cuda=st.booleans(), memory_bytes=st.sampled_from([0, 10**9, 10**10]))


@st.composite
def crowds(draw: st.DrawFn) -> list[Waiting]:
    """Jobs of a few projects."""
    drawn = draw(st.lists(st.tuples(st.sampled_from("abc"), MOMENTS, st.sampled_from([0, 5]), NEEDS), max_size=12))
    return [
        Waiting(job_id=f"{p}{i}", project_id=p, turn_at=turn, not_before=NOW + timedelta(minutes=pause), needs=needs)
        for i, (p, turn, pause, needs) in enumerate(drawn)
    ]


CROWDS = crowds()
PROJECTS = st.fixed_dictionaries(dict.fromkeys("abc", SHARES))


@given(CROWDS, PROJECTS, st.integers(1, 6))
def test_the_order_told_is_the_order_in_which_workers_choose(
    waiting: list[Waiting], shares: dict[str, Share], limit: int
) -> None:
    able = [job for job in waiting if job.not_before <= NOW]
    told = [turn.job.job_id for turn in in_turn(able, shares, limit=limit) if not turn.over_limit]
    chosen, left, clock = [], able, NOW
    while (job := choose(left, shares, GPU, now=clock, limit=limit)) is not None:
        clock += timedelta(seconds=1)
        chosen.append(job.job_id)
        left = [other for other in left if other is not job]
        had = shares[job.project_id].running
        shares = shares | {job.project_id: Share(running=had + 1, served_at=clock)}
    assert chosen == told


@given(CROWDS, PROJECTS, st.integers(1, 6), st.sampled_from([PLAIN, GPU]))
def test_no_worker_stays_idle_that_could_work_and_no_limit_is_exceeded(
    waiting: list[Waiting], shares: dict[str, Share], limit: int, machine: Machine
) -> None:
    may = [
        job
        for job in waiting
        if job.not_before <= NOW and machine.meets(job.needs) and shares[job.project_id].running < limit
    ]
    chosen = choose(waiting, shares, machine, now=NOW, limit=limit)
    assert (chosen is None) == (not may)
    assert chosen is None or chosen in may


@given(CROWDS, PROJECTS, st.integers(1, 3), st.randoms(use_true_random=False))
def test_whoever_waits_is_served_although_others_never_stop_submitting(
    waiting: list[Waiting], shares: dict[str, Share], limit: int, dice: Any
) -> None:
    """A worker ends a job an hour; each hour every project but the one we look at submits a job of high priority."""
    if not waiting:
        return
    wanted, running, left = waiting[0], [p for p, s in shares.items() for _ in range(s.running)], list(waiting)
    last = {project: share.served_at for project, share in shares.items()}
    for hour in range(200):
        clock = NOW + timedelta(hours=hour + 1)
        others = [p for p in "abc" if p != wanted.project_id]
        for project in others:
            early = turn_at(spec(priority=100), clock)
            left.append(Waiting(job_id=f"{project}x{hour:03}", project_id=project, turn_at=early, not_before=clock))
        if running:
            running.pop(dice.randrange(len(running)))
        now_shares = {p: Share(running=running.count(p), served_at=last[p]) for p in "abc"}
        chosen = choose(left, now_shares, GPU, now=clock, limit=limit)
        if chosen is None:
            continue
        if chosen.job_id == wanted.job_id:
            return
        left.remove(chosen)
        running.append(chosen.project_id)
        last[chosen.project_id] = clock
    raise AssertionError("it never had its turn")


@given(CROWDS, PROJECTS, st.lists(st.sampled_from([PLAIN, GPU]), max_size=3), st.integers(1, 6))
def test_everybody_who_waits_has_a_place_of_its_own(
    waiting: list[Waiting], shares: dict[str, Share], machines: list[Machine], limit: int
) -> None:
    found = places(waiting, shares, free=machines, busy=[], now=NOW, limit=limit)
    assert set(found) == {job.job_id for job in waiting}
    assert [place.position for place in found.values()] == list(range(1, len(waiting) + 1))
