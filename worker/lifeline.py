"""Processes that end together: a child asks the kernel to be killed when its parent goes."""

import ctypes
import os
import signal
from dataclasses import dataclass
from typing import Any

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


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How a process ended."""

    reason: str
    """A sentence."""
    facts: dict[str, Any]


def describe_exit(status: int, *, out_of_memory: bool | None, peak_bytes: int | None) -> Ending:
    """What a wait status tells. `out_of_memory`: the kernel ended some process for that while this one ran."""
    facts: dict[str, Any] = {} if peak_bytes is None else {"peak_bytes": peak_bytes}
    peak = "" if peak_bytes is None else f" At most it held {peak_bytes / 1e6:,.0f} MB."
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        facts |= {"signal": name}
        if name != "SIGKILL":
            return Ending(reason=f"The trainer was ended by {name}.{peak}", facts=facts)
        facts |= {"out_of_memory": out_of_memory}
        why = {
            True: ": the machine ran out of memory",
            False: "",
            None: ", which is how a machine out of memory ends it",
        }[out_of_memory]
        return Ending(reason=f"The trainer was ended by {name}{why}.{peak}", facts=facts)
    code = os.waitstatus_to_exitcode(status)
    reason = f"The trainer ended with exit code {code} before it had finished.{peak}"
    return Ending(reason=reason, facts=facts | {"code": code})
