"""What is told of how a trainer ended."""

import os
import signal

import pytest

from worker.lifeline import describe_exit


def status_of(pid: int) -> int:
    return os.waitpid(pid, 0)[1]


def killed(number: int) -> int:
    pid = os.fork()
    if pid == 0:
        signal.pause()
    os.kill(pid, number)
    return status_of(pid)


@pytest.mark.parametrize(
    ("out_of_memory", "said"),
    [
        (True, "The trainer was ended by SIGKILL: the machine ran out of memory. At most it held 120 MB."),
        (False, "The trainer was ended by SIGKILL. At most it held 120 MB."),
        (
            None,
            "The trainer was ended by SIGKILL, which is how a machine out of memory ends it. At most it held 120 MB.",
        ),
    ],
)
def test_a_kill_is_told_from_running_out_of_memory_where_that_is_known(out_of_memory: bool | None, said: str) -> None:
    ending = describe_exit(killed(signal.SIGKILL), out_of_memory=out_of_memory, peak_bytes=120_000_000)
    assert ending.reason == said
    assert ending.facts == {"signal": "SIGKILL", "out_of_memory": out_of_memory, "peak_bytes": 120_000_000}


def test_another_signal_and_an_exit_code_are_named() -> None:
    ending = describe_exit(killed(signal.SIGTERM), out_of_memory=True, peak_bytes=None)
    assert (ending.reason, ending.facts) == ("The trainer was ended by SIGTERM.", {"signal": "SIGTERM"})
    pid = os.fork()
    if pid == 0:
        os._exit(7)
    ending = describe_exit(status_of(pid), out_of_memory=False, peak_bytes=None)
    assert ending.reason == "The trainer ended with exit code 7 before it had finished."
    assert ending.facts == {"code": 7}
