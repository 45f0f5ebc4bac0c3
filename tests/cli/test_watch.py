"""Following a job: exit codes, lines where nobody looks, a moving picture on a terminal."""

import os
import re
import signal
import threading
import time

import pytest

from stillhouse.spec import JobStatus
from stillhouse.spec.views import Job, JobError
from tests.cli.terminal import Here, elsewhere, environment, on_a_terminal, start
from tests.house import SPEC, House


def submitted(house: House) -> Job:
    """A waiting job."""
    with house.client() as client:
        return client.jobs.create(SPEC | {"name": "watched"})


@pytest.mark.parametrize(
    ("verdict", "code"), [(None, 0), ("passed", 0), ("below_target", 4)], ids=["no target", "passed", "below target"]
)
def test_success_is_told_by_the_exit_code_and_the_table(
    say: Here, house: House, verdict: str | None, code: int
) -> None:
    job = submitted(house)
    house.succeed(house.take_up(job.id), {}, verdict=verdict)
    said = say("watch", job.id)
    assert said.code == code
    assert "distilled student" in said.out
    assert f"stillhouse pull {job.id}" in said.err


def test_failure_is_1_and_shown_in_a_box(say: Here, house: House) -> None:
    job = submitted(house)
    error = JobError(code="out_of_memory", detail="The trainer needed more memory.", hint="Take a smaller batch.")
    house.fail(house.take_up(job.id), error)
    said = say("watch", job.id)
    assert said.code == 1
    assert "failed: out_of_memory" in said.out
    assert "hint: Take a smaller batch." in said.out
    assert "pull" not in said.err
    assert say("watch", job.id, "--json").json()["error"]["code"] == "out_of_memory"


def test_cancellation_is_3(say: Here, house: House) -> None:
    job = submitted(house)
    with house.client() as client:
        client.jobs.cancel(job)
    assert say("watch", job.id).code == 3


def test_an_unreachable_service_is_5(say: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    said = say("--url", "http://127.0.0.1:9", "--key", "x", "watch", "last")
    assert said.code == 5
    assert "127.0.0.1:9" in said.err


def test_what_is_no_job_is_2(say: Here) -> None:
    assert say("watch", "job_abc").code == 2


def test_without_a_terminal_it_prints_lines(house: House) -> None:
    job = submitted(house)
    lease = house.take_up(job.id)
    steps = iter(
        [
            lambda: house.advance(lease, step=25, loss=2.0, loss_kd=1.5, loss_ce=0.5, learning_rate=0.003),
            lambda: (
                house.advance(lease, step=26, loss=1.9),  # no new tenth of the phase: no new line
                house.advance(lease, step=60, loss=1.0, validation_accuracy=0.95),
            ),
            lambda: house.succeed(lease, {}),
        ]
    )
    process = start("watch", job.id, env=environment(house))
    assert process.stdout is not None
    assert process.stderr is not None
    lines = []
    for line in process.stdout:
        assert "\x1b" not in line
        lines.append(" ".join(line.split()))
        next(steps, lambda: None)()
    assert lines[:4] == [
        "running: A worker is on it.",
        "distilling 25 % epoch 3/10 loss 2 loss ce 0.5 loss kd 1.5",
        "distilling 60 % epoch 6/10 loss 1 loss ce 0.5 loss kd 1.5 validation accuracy 95.00 %",
        f"{job.id} succeeded",
    ]
    assert "\x1b" not in process.communicate(timeout=120)[1]
    assert process.returncode == 0


def test_a_job_that_waits_without_a_worker_is_explained(house: House) -> None:
    job = submitted(house)
    process = start("watch", job.id, env=environment(house))
    assert process.stderr is not None
    assert "No worker is running" in process.stderr.readline()
    with house.client() as client:
        client.jobs.cancel(job)
    process.communicate(timeout=120)
    assert process.returncode == 3


def test_submit_watch_goes_from_file_to_table(house: House, spec_file: str) -> None:
    process = start("submit", spec_file, "--watch", env=environment(house))
    assert process.stderr is not None
    accepted = process.stderr.readline()
    assert "was accepted" in accepted
    house.succeed(house.take_up(accepted.split()[0]), {})
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    assert "distilled student" in out


def test_on_a_terminal_a_bar_moves_and_gives_way_to_the_table(house: House) -> None:
    job = submitted(house)
    lease = house.take_up(job.id)
    house.advance(lease, step=37, loss=1.25, validation_accuracy=0.9)
    ended = threading.Event()

    def end_once_the_bar_is_seen(seen: str) -> None:
        if "37 %" in seen and "validation accuracy 90.00 %" in seen and not ended.is_set():
            ended.set()
            house.succeed(lease, {})

    said = on_a_terminal("watch", job.id, env=environment(house), when=end_once_the_bar_is_seen)
    assert said.code == 0
    assert "━" in said.out
    assert "distilling" in said.out
    assert "s left" in said.out
    # The picture is wiped before the outcome is printed.
    assert re.search(r"\x1b\[2K.*distilled student", said.out, re.DOTALL)


@pytest.mark.parametrize("variable", ["NO_COLOR", "CI"])
def test_who_asks_for_plain_text_gets_it_on_a_terminal_too(house: House, variable: str) -> None:
    job = submitted(house)
    house.succeed(house.take_up(job.id), {})
    said = on_a_terminal("watch", job.id, env=environment(house, **{variable: "1"}))
    assert said.code == 0
    assert "\x1b[?25l" not in said.out  # the cursor of a live picture


def test_ctrl_c_leaves_the_job_running_and_says_so(house: House) -> None:
    job = submitted(house)
    house.advance(house.take_up(job.id), step=37)
    # A job in the background of a shell ignores Ctrl-C, and so would its children.
    process = start(
        "watch", job.id, env=environment(house), preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    )
    assert process.stdout is not None
    while "37 %" not in process.stdout.readline():
        assert process.poll() is None
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "the job goes on" in err
    assert f"stillhouse watch {job.id}" in err
    with house.client() as client:
        assert client.jobs.get(job).status is JobStatus.RUNNING


def test_colours_are_for_terminals(house: House) -> None:
    job = submitted(house)
    house.succeed(house.take_up(job.id), {})
    assert "\x1b[1;32m" in on_a_terminal("jobs", "show", job.id, env=environment(house)).out
    assert "\x1b" not in elsewhere("jobs", "show", job.id, env=environment(house)).out
