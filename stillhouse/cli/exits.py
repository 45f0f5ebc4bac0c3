"""What the exit code of a command says."""

from enum import IntEnum

from stillhouse.spec.errors import Invalid, StillhouseError, Unavailable, Unreachable
from stillhouse.spec.states import JobStatus
from stillhouse.spec.views import Job


class ExitCode(IntEnum):
    """Exit codes of all commands."""

    OK = 0
    FAILED = 1
    USAGE = 2
    CANCELLED = 3
    BELOW_TARGET = 4
    UNREACHABLE = 5
    INTERRUPTED = 130


EXIT_CODES_HELP = (
    "Exit codes: 0 succeeded · 1 failed, or the service refused · 2 wrong command line, spec or data · 3 cancelled · "
    "4 succeeded but below its targets · 5 service unreachable · 130 Ctrl-C (the job goes on)."
)


def of_job(job: Job) -> ExitCode:
    """How a job that is over ended."""
    if job.status is JobStatus.CANCELLED:
        return ExitCode.CANCELLED
    if job.status is not JobStatus.SUCCEEDED:
        return ExitCode.FAILED
    return ExitCode.BELOW_TARGET if job.verdict == "below_target" else ExitCode.OK


def of_error(error: StillhouseError) -> ExitCode:
    """How a command that met `error` ends."""
    if isinstance(error, Unreachable | Unavailable):
        return ExitCode.UNREACHABLE
    return ExitCode.USAGE if isinstance(error, Invalid) else ExitCode.FAILED
