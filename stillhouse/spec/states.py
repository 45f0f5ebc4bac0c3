"""The states of a job. The enum owns transitions, finality and wording; nobody else compares strings."""

from enum import StrEnum
from typing import Literal


class JobStatus(StrEnum):
    """Where a job is. Resting states are participles, passing ones end in -ing."""

    QUEUED = "queued"
    RUNNING = "running"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """True when the job will never change again."""
        return not _NEXT[self]

    @property
    def wording(self) -> str:
        """One sentence for people."""
        return _WORDING[self]

    def can_become(self, other: "JobStatus") -> bool:
        """True when `self → other` is a legal transition."""
        return other in _NEXT[self]


_NEXT: dict[JobStatus, frozenset[JobStatus]] = {
    JobStatus.QUEUED: frozenset({JobStatus.RUNNING, JobStatus.FAILED, JobStatus.CANCELLED}),
    # running → queued: the attempt was lost with its worker and the job waits for another.
    JobStatus.RUNNING: frozenset(
        {JobStatus.QUEUED, JobStatus.CANCELLING, JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED}
    ),
    JobStatus.CANCELLING: frozenset({JobStatus.CANCELLED}),
    JobStatus.SUCCEEDED: frozenset(),
    JobStatus.FAILED: frozenset(),
    JobStatus.CANCELLED: frozenset(),
}

_WORDING = {
    JobStatus.QUEUED: "Waiting for a worker.",
    JobStatus.RUNNING: "A worker is on it.",
    JobStatus.CANCELLING: "Being stopped.",
    JobStatus.SUCCEEDED: "Finished; the student can be downloaded.",
    JobStatus.FAILED: "Ended without a student; `error` says why.",
    JobStatus.CANCELLED: "Stopped on request.",
}

FINAL = frozenset(status for status in JobStatus if status.final)
ACTIVE = frozenset({JobStatus.RUNNING, JobStatus.CANCELLING})
"""States in which a worker holds the job under a lease."""


class Phase(StrEnum):
    """What a running job is doing. Separate from the status: phases are progress, not promises."""

    PREPARING = "preparing"
    TRAINING_TEACHER = "training_teacher"
    TRAINING_BASELINE = "training_baseline"
    LABELLING = "labelling"
    DISTILLING = "distilling"
    FINETUNING = "finetuning"
    EVALUATING = "evaluating"
    EXPORTING = "exporting"


Verdict = Literal["passed", "below_target"]
"""Whether the measured student meets the `targets` of its spec."""
