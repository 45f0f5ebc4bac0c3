"""What a process that reads untrusted bytes does before it meets the first of them."""

import ctypes
import errno
import math
import resource
import signal
import sys

from stillhouse.spec.errors import ServerFault

_PR_SET_PDEATHSIG = 1


def confine(*, seconds: float, memory_bytes: int, file_bytes: int, open_files: int) -> None:
    """Bound this process: CPU time, address space, any file it writes, files open at once; and end it with its parent.

    Nobody waits for the answer of a service that is gone.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    cpu_seconds = math.ceil(seconds) + 2  # one thread: wall-clock time is the tighter bound
    for kind, most in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CPU, cpu_seconds),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_NOFILE, open_files),
        (resource.RLIMIT_CORE, 0),
    ):
        if kind == resource.RLIMIT_AS and sys.platform != "linux":
            continue  # elsewhere the address space says nothing about memory
        _, hard = resource.getrlimit(kind)
        value = most if hard == resource.RLIM_INFINITY else min(most, hard)
        # At the hard limit of CPU time the kernel kills; a second earlier it says why, with SIGXCPU.
        soft = value - 1 if kind == resource.RLIMIT_CPU else value
        resource.setrlimit(kind, (soft, value))


def disk_fault(error: OSError) -> ServerFault:
    """What the caller learns of it. The path in the error's own message is ours: it goes to standard error alone."""
    print(error, file=sys.stderr)  # noqa: T201
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    reason = "There is no room on the service's disk." if full else "The service's disk failed."
    return ServerFault(reason, hint="Try again later, or tell the operator.")
