"""The states of a job. The enum owns transitions, finality and wording; nobody else compares strings."""

from enum import StrEnum
from typing import Literal


class JobStatus(StrEnum):
    """Where a job is. Resting states are participles, passing ones end in -ing."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSING = "pausing"
    PAUSED = "paused"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """True when the job is over: it stays so unless somebody has it tried again."""
        return self in FINAL

    @property
    def wording(self) -> str:
        """One sentence for people."""
        return _WORDING[self]

    def can_become(self, other: "JobStatus") -> bool:
        """True when `self → other` is a legal transition."""
        return other in _NEXT[self]


_NEXT: dict[JobStatus, frozenset[JobStatus]] = {
    JobStatus.QUEUED: frozenset({JobStatus.RUNNING, JobStatus.PAUSED, JobStatus.FAILED, JobStatus.CANCELLED}),
    JobStatus.RUNNING: frozenset(
        {
            # The attempt was lost with its worker, or handed back, and the job waits for another.
            JobStatus.QUEUED,
            JobStatus.PAUSING,
            JobStatus.CANCELLING,
            JobStatus.SUCCEEDED,
            JobStatus.FAILED,
            JobStatus.CANCELLED,
        }
    ),
    # The work may end before it could be put aside; and who resumes it meanwhile has it run on.
    JobStatus.PAUSING: frozenset(
        {JobStatus.PAUSED, JobStatus.RUNNING, JobStatus.CANCELLING, JobStatus.SUCCEEDED, JobStatus.FAILED}
    ),
    JobStatus.PAUSED: frozenset({JobStatus.QUEUED, JobStatus.CANCELLED}),
    JobStatus.CANCELLING: frozenset({JobStatus.CANCELLED}),
    JobStatus.SUCCEEDED: frozenset(),
    # Only by `retry`.
    JobStatus.FAILED: frozenset({JobStatus.QUEUED}),
    JobStatus.CANCELLED: frozenset({JobStatus.QUEUED}),
}

_WORDING = {
    JobStatus.QUEUED: "Waiting for a worker.",
    JobStatus.RUNNING: "A worker is on it.",
    JobStatus.PAUSING: "Being put aside.",
    JobStatus.PAUSED: "Put aside on request; `resume` goes on with it.",
    JobStatus.CANCELLING: "Being stopped.",
    JobStatus.SUCCEEDED: "Finished; the student can be downloaded.",
    JobStatus.FAILED: "Ended without a student; `error` says why.",
    JobStatus.CANCELLED: "Stopped on request.",
}

FINAL = frozenset({JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED})
ACTIVE = frozenset({JobStatus.RUNNING, JobStatus.PAUSING, JobStatus.CANCELLING})
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


STUDENT_PHASES = frozenset({Phase.DISTILLING, Phase.FINETUNING, Phase.EVALUATING, Phase.EXPORTING})
"""Phases in which there is a student that has begun to learn from its teacher."""

Verdict = Literal["passed", "below_target"]
"""Whether the measured student meets the `targets` of its spec."""
