"""Which checkpoints forgive the attempts lost before them, on both databases."""

# ruff: noqa: F811 - an imported fixture is an argument by its name
import pytest

from core.db import Database
from models import checkpoints, lifecycle, verbs
from stillhouse.spec.events import CheckpointSaved
from stillhouse.spec.states import JobStatus, Phase
from tests.models.test_lifecycle import claimed, job_id, row  # noqa: F401 - one is a fixture

LIMIT = 3


def saved(number: int, *, step: int, phase: Phase = Phase.DISTILLING) -> CheckpointSaved:
    return CheckpointSaved(
        file=f"{number:06d}.checkpoint",
        bytes=1,
        sha256="0" * 64,
        phase=phase,
        epoch=1,
        step=step,
        steps=1000,
        loss=None,
        best=False,
    )


def keep(database: Database, lease: lifecycle.Lease, *kept: CheckpointSaved, points: int = 0) -> None:
    """Record checkpoints as a supervisor does: those with two newer ones go."""
    for one in kept:
        key = f"a{lease.attempt}/{one.file}"
        with database.write() as session:
            assert checkpoints.add(session, lease, one, storage_key=key, points=points)
            for gone in checkpoints.unneeded(session, job_id=lease.job_id):
                checkpoints.forget(session, gone)


def lose(database: Database, lease: lifecycle.Lease) -> None:
    with database.write() as session:
        assert lifecycle.lose_attempt(session, lease, "The trainer was killed.", limit=LIMIT, retry_seconds=0)


def test_a_job_that_starts_anew_each_time_and_dies_at_one_place_comes_to_its_limit(
    database: Database, job_id: str
) -> None:
    """Its checkpoints are of no use to the next attempt, which writes some more before it dies."""
    for attempt in range(1, LIMIT + 1):
        lease = claimed(database, job_id)
        # Not at the same steps: checkpoints go by the clock. The farthest is that of the first attempt.
        keep(database, lease, *(saved(n, step=100 * n - attempt) for n in (1, 2, 3)))
        lose(database, lease)
    # The first attempt was lost after its checkpoints, so it counts.
    ended = row(database, job_id)
    assert (ended.status, ended.attempt, ended.lost_attempts) == ("failed", LIMIT, LIMIT)


def test_a_job_that_comes_farther_each_time_is_never_given_up(database: Database, job_id: str) -> None:
    for attempt in range(1, 3 * LIMIT):
        lease = claimed(database, job_id)
        keep(database, lease, saved(attempt, step=10 * attempt))
        lose(database, lease)
        assert (row(database, job_id).status, row(database, job_id).lost_attempts) == ("queued", 1)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((Phase.DISTILLING, 90, 5), (Phase.DISTILLING, 91, 5)),
        ((Phase.DISTILLING, 90, 5), (Phase.DISTILLING, 10, 6)),  # the next network of the same phase
        ((Phase.TRAINING_BASELINE, 90, 5), (Phase.DISTILLING, 10, 5)),
    ],
)
def test_a_later_place_is_farther_though_its_steps_begin_anew(
    before: tuple[Phase, int, int], after: tuple[Phase, int, int]
) -> None:
    places = [checkpoints.place_of(saved(1, phase=phase, step=step), points) for phase, step, points in (before, after)]
    assert places == sorted(places)
    assert places[0] != places[1]


def test_a_job_tried_again_is_forgiven_anew(database: Database, job_id: str) -> None:
    for _ in range(LIMIT):
        lease = claimed(database, job_id)
        keep(database, lease, saved(1, step=100))
        lose(database, lease)
    with database.write() as session:
        assert verbs.request_retry(session, job_id) is JobStatus.QUEUED
    lease = claimed(database, job_id)
    lose(database, lease)
    lease = claimed(database, job_id)
    keep(database, lease, saved(1, step=50))
    assert row(database, job_id).lost_attempts == 0


def test_a_checkpoint_on_record_is_so_also_when_the_answer_was_lost_and_the_lease_after_it(
    database: Database, job_id: str
) -> None:
    lease = claimed(database, job_id)
    kept = saved(1, step=100)
    keep(database, lease, kept)
    lose(database, lease)
    with database.write() as session:
        assert checkpoints.add(session, lease, kept, storage_key="a1/000001.checkpoint", points=0)
        assert not checkpoints.add(session, lease, saved(2, step=200), storage_key="a1/000002.checkpoint", points=0)
