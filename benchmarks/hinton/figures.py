"""The paper's figures and ours, side by side."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

from benchmarks.hinton.jobs import Found
from benchmarks.hinton.protocol import SEEDS, TEMPERATURES, WIDTHS
from benchmarks.hinton.unseen import Correction


@dataclass(frozen=True)
class Figure:
    """One row of the table."""

    what: str
    paper: str
    ours: tuple[float, ...]
    """One number per seed."""
    target: str = ""
    met: bool | None = None
    """None: a figure without a target."""
    form: str = "{:.0f}"

    def line(self) -> str:
        """As a row of a Markdown table."""
        each = ", ".join(self.form.format(value) for value in self.ours)
        shown = f"{mean(self.ours):.1f} ({each})" if len(self.ours) > 1 and self.form == "{:.0f}" else each
        if len(self.ours) > 1 and self.form != "{:.0f}":
            shown = f"{self.form.format(mean(self.ours))} ({each})"
        verdict = "" if self.met is None else ("met" if self.met else "**missed**")
        return f"| {self.what} | {self.paper} | {shown} | {self.target} | {verdict} |"


def table(figures: Sequence[Figure]) -> str:
    """All of them as a Markdown table."""
    return "\n".join(["| errors | paper | ours | target | |", "|---|---|---|---|---|", *(f.line() for f in figures)])


@dataclass(frozen=True)
class Unseen:
    """Students that never saw some digits, one per seed."""

    without_3: Sequence[Correction]
    only_7_8: Sequence[Correction]


def figures(found: Mapping[str, Found], plain: Unseen, from_mean: Unseen, threes: int) -> Iterator[Figure]:
    """Every figure of the section; `threes` are the test images of a 3."""
    yield from _large(found)
    yield from _unseen(plain, threes, found["teacher"].rows, paper=True)
    yield from _unseen(from_mean, threes, found["teacher"].rows, paper=False)
    yield from _sweep(found)


def _large(found: Mapping[str, Found]) -> Iterator[Figure]:
    teacher, hard, soft = found["teacher"].teacher_errors, _errors(found, "hard"), _errors(found, "soft")
    mean_teacher = found[f"soft mean {SEEDS[0]}"].teacher_errors
    from_mean = _errors(found, "soft mean")
    yield _judged("teacher 1200-1200, dropout, max-norm, jitter", "67", (teacher,), "≤ 75", lambda e: e <= 75)
    yield _judged("student 800-800, hard labels", "146", hard, "130 to 185", lambda e: 130 <= e <= 185)
    yield _judged("student 800-800, soft targets, T = 20", "74", soft, "≤ 95, aim ≤ 85", lambda e: e <= 95)
    yield _gap("91 %", hard, soft, teacher)
    yield Figure("the teacher, mean over 9 shifts of the image", "–", (mean_teacher,))
    yield _judged("student 800-800 from that mean, T = 20", "–", from_mean, "≤ 95, aim ≤ 85", lambda e: e <= 95)
    yield _gap("–", hard, from_mean, teacher)
    yield Figure("jitter in the transfer set, hard labels alone", "–", _errors(found, "jittered hard"))
    yield Figure("jitter in the transfer set, soft targets", "–", _errors(found, "jittered soft"))


def _gap(paper: str, hard: Sequence[int], soft: Sequence[int], teacher: int) -> Figure:
    """Share of the teacher's lead; judged on the means."""
    each = tuple((h - s) / (h - teacher) for h, s in zip(hard, soft, strict=True))
    share = (mean(hard) - mean(soft)) / (mean(hard) - teacher)
    return Figure("… share of the gap recovered", paper, each, "≥ 70 %", share >= 0.7, "{:.0%}")


def _unseen(students: Unseen, threes: int, rows: int, *, paper: bool) -> Iterator[Figure]:
    """`paper`: as the paper has it. Otherwise from the mean over shifts, held against the same figures."""

    def named(what: str, theirs: str) -> tuple[str, str]:
        return (what, theirs) if paper else (f"{what}, from the mean over shifts", "–")

    three, both = students.without_3, students.only_7_8
    yield Figure(*named("no 3 in the transfer set", "206"), tuple(c.errors[0] for c in three))
    yield Figure(*named("… of the 1,010 threes", "133"), tuple(c.errors_on_classes[0] for c in three))
    yield Figure(*named("… bias of 3 raised by", "3.5"), tuple(c.by for c in three), form="{:+.2f}")
    yield Figure(*named("… then", "109"), tuple(c.errors[1] for c in three))
    right = tuple(1 - c.errors_on_classes[1] / threes for c in three)
    yield _judged(*named("… then threes right", "98.6 %"), right, "≥ 98.6 %", lambda r: r >= 0.986, "{:.1%}")
    before, after = (tuple(c.errors[i] / rows for c in both) for i in (0, 1))
    yield Figure(*named("only 7 and 8 in the transfer set", "47.3 %"), before, form="{:.1%}")
    yield Figure(*named("… biases of 7 and 8 changed by", "-7.6"), tuple(c.by for c in both), form="{:+.2f}")
    yield _judged(*named("… then", "13.2 %"), after, "≤ 13.2 %", lambda e: e <= 0.132, "{:.1%}")


def _sweep(found: Mapping[str, Found]) -> Iterator[Figure]:
    for width in WIDTHS:
        for kind in ("hard", *(f"T={t:g}" for t in TEMPERATURES)):
            what = f"{width}-{width}, {'hard labels' if kind == 'hard' else kind.replace('=', ' = ')}"
            yield Figure(what, "–", _errors(found, f"width {width} {kind}"))


def _errors(found: Mapping[str, Found], name: str) -> tuple[int, ...]:
    return tuple(found[f"{name} {seed}"].errors for seed in SEEDS if f"{name} {seed}" in found)


def _judged(
    what: str, paper: str, ours: tuple[float, ...], target: str, good: Callable[[float], bool], form: str = "{:.0f}"
) -> Figure:
    return Figure(what, paper, ours, target, good(mean(ours)), form)
