"""Is there anything to learn from a teacher? Asked before anything is spent on learning from it."""

from math import comb

from torch import Tensor

from distill.evaluate import Score
from stillhouse.spec.errors import JobFailure

CHANCE = 0.05
"""A baseline that is better by less than chance explains this often is not held against the teacher."""


def let_teach(teacher: Score, baseline: Score, labels: Tensor, *, split: str) -> None:
    """Raise JobFailure `teacher_too_weak` when the student's own baseline beats the teacher.

    Both were measured on the same rows with `labels` int64 [rows].
    """
    if not beats(baseline, teacher, labels):
        return
    raise JobFailure(
        "teacher_too_weak",
        f"The student alone is right on {baseline.accuracy:.2%} of {baseline.rows:,} {split} rows, the teacher on "
        f"{teacher.accuracy:.2%}: there is nothing to learn from it.",
        hint="Take a better teacher, or train this one longer, or less if it learns its rows by heart. "
        "evaluation.teacher_gate: off distils all the same.",
    )


def beats(one: Score, other: Score, labels: Tensor) -> bool:
    """Is `one` right on more of the rows with `labels` int64 [rows] than chance explains?

    Only rows that one of them alone has right can tell the two apart; the sign test asks how often a fair coin would
    favour it as much (one-sided).
    """
    right, others = one.classes == labels, other.classes == labels
    won, lost = int((right & ~others).sum()), int((others & ~right).sum())
    return won > lost and sign_test(won, lost) < CHANCE


def sign_test(won: int, lost: int) -> float:
    """The chance that a fair coin thrown `won + lost` times shows `won` heads or more."""
    throws = won + lost
    return float(sum(comb(throws, heads) for heads in range(won, throws + 1)) / 2**throws)
