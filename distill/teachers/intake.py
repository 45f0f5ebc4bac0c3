"""`python -m distill.teachers.intake REQUEST.json`: read one uploaded teacher within limits and print one JSON line, an
`IntakeAnswer`.

Exit status 0 means that the line is the answer, whether the teacher was stored or refused. Anything else (a crash,
`EXIT_OUT_OF_MEMORY`, a signal) leaves no line, and the process that started this one says what it means.
"""

import ctypes
import errno
import math
import os
import resource
import signal
import sys
from pathlib import Path

import torch

from distill.teachers.read import read
from stillhouse.spec.errors import InvalidData, ServerFault, TooLarge, UnsupportedMedia
from stillhouse.spec.limits import Limits
from stillhouse.spec.teachers import IntakeAnswer, IntakeRequest
from stillhouse.spec.upload import EXIT_OUT_OF_MEMORY, Refusal

_PR_SET_PDEATHSIG = 1
_OPEN_FILES = 256
_BESIDE_BYTES = 256 * 1024**2


def main() -> None:
    """Read the request named by the first argument."""
    request = IntakeRequest.model_validate_json(Path(sys.argv[1]).read_bytes())
    _die_with_parent()
    _limit(request.limits)
    torch.set_num_threads(1)
    # Libraries print what they like; the answer alone goes to the real standard output.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        answers.write(_answer(request).model_dump_json(exclude_none=True) + "\n")
        answers.flush()
    except MemoryError:
        sys.exit(EXIT_OUT_OF_MEMORY)


def _answer(request: IntakeRequest) -> IntakeAnswer:
    try:
        return IntakeAnswer(ok=read(request))
    except (InvalidData, TooLarge, UnsupportedMedia) as error:
        return IntakeAnswer(error=Refusal.of(error))
    except OSError as error:
        # The path in its message is ours; only the log of the service may have it.
        print(error, file=sys.stderr)  # noqa: T201
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        reason = "There is no room on the service's disk." if full else "The service's disk failed."
        return IntakeAnswer(error=Refusal.of(ServerFault(reason, hint="Try again later, or tell the operator.")))


def _limit(limits: Limits) -> None:
    """Bound this process before it meets a byte of the upload."""
    cpu_seconds = math.ceil(limits.max_ingest_seconds) + 2  # one thread: wall-clock time is the tighter bound
    for kind, most in (
        (resource.RLIMIT_AS, limits.max_intake_memory_bytes),
        (resource.RLIMIT_CPU, cpu_seconds),
        (resource.RLIMIT_FSIZE, limits.max_expanded_bytes + _BESIDE_BYTES),
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
        (resource.RLIMIT_CORE, 0),
    ):
        if kind == resource.RLIMIT_AS and sys.platform != "linux":
            continue  # elsewhere the address space says nothing about memory
        _, hard = resource.getrlimit(kind)
        value = most if hard == resource.RLIM_INFINITY else min(most, hard)
        # At the hard limit of CPU time the kernel kills; a second earlier it says why, with SIGXCPU.
        soft = value - 1 if kind == resource.RLIMIT_CPU else value
        resource.setrlimit(kind, (soft, value))


def _die_with_parent() -> None:
    """Nobody waits for the answer of a service that is gone."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    main()
