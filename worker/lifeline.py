"""Processes that end together: a child asks the kernel to be killed when its parent goes."""

import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent_pid: int) -> None:
    """Have this process killed when the parent's thread that started it ends; at once if it has already gone.

    Linux only; elsewhere the watched pipe of each child is what ends it. The wish is lost by a fork, so each
    generation asks for itself.
    """
    try:
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    except (OSError, AttributeError):
        return
    if os.getppid() != parent_pid:
        os.kill(os.getpid(), signal.SIGKILL)


def kill_group(pid: int) -> None:
    """Kill a process and all it started, if they still live."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def describe_exit(status: int) -> str:
    """A sentence about a wait status."""
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        often = ", which is how a machine out of memory ends it" if name == "SIGKILL" else ""
        return f"The trainer was ended by {name}{often}."
    return f"The trainer ended with exit code {os.waitstatus_to_exitcode(status)} before it had finished."
