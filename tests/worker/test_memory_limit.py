"""A trainer that takes more memory than it may is ended, and the job says so. Real processes."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.worker.service import Service, spec
from worker import memory_limit


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    return sqlite_url


GREEDY = "import sys, time; held = bytearray(b'x' * {mb} * 2**20); print('up', flush=True); time.sleep(60)"


@contextmanager
def started(code: str) -> Iterator["subprocess.Popen[bytes]"]:
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        yield process
        process.kill()


def test_a_process_above_the_limit_is_killed_with_its_group() -> None:
    with started(GREEDY.format(mb=200)) as process, memory_limit.watched(process.pid, 100) as watch:
        assert process.wait(30) == -9
    assert watch.exceeded
    assert watch.failure().code == "out_of_memory"
    assert "100 MB" in watch.failure().detail


def test_what_children_take_counts_too() -> None:
    child = GREEDY.format(mb=200)
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    with started(parent) as process, memory_limit.watched(process.pid, 100) as watch:
        assert process.wait(30) == -9
    assert watch.exceeded


def test_a_process_below_the_limit_is_left_alone() -> None:
    with started(GREEDY.format(mb=10)) as process, memory_limit.watched(process.pid, 400) as watch:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        assert not watch.exceeded


def test_a_job_that_needs_more_than_its_trainer_may_take_fails_at_once_and_says_why(service: Service) -> None:
    service.start_worker(STILLHOUSE_TRAINER_MEMORY_MB="40")
    job = service.wait(service.submit(spec(epochs=50)), "failed", "succeeded")
    assert job.status == "failed"
    assert job.error is not None
    assert job.error["code"] == "out_of_memory"
    assert "40 MB" in job.error["detail"]
    assert (job.attempt, job.lost_attempts) == (1, 0)
