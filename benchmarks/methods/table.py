"""The figures side by side."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from benchmarks.methods.conditions import ALONE, BESIDE, Beside
from benchmarks.methods.paired import paired

HEAD = (
    "| family | method | beside labels | − alone | − kd | beside kd and labels | − alone | − kd |\n"
    "|---|---|---|---|---|---|---|---|"
)


@dataclass(frozen=True)
class Row:
    """One way to train the student: accuracy on the test images, one per seed."""

    method: str
    family: str
    beside: Beside
    accuracy: tuple[float, ...]

    @property
    def shown(self) -> str:
        """Mean ± standard deviation over the seeds, in percent."""
        return f"{100 * mean(self.accuracy):.2f} % ± {100 * stdev(self.accuracy):.2f}"


def table(rows: Sequence[Row]) -> str:
    """A Markdown table, one line per method. Needs the student alone and `kd` among the rows."""
    by_method: dict[str, dict[str, Row]] = {}
    for row in rows:
        by_method.setdefault(row.method, {})[row.beside] = row
    alone, kd = by_method[ALONE]["ce"], by_method["kd"]["ce"]
    return "\n".join([HEAD, *(_line(found, alone, kd) for found in by_method.values())])


def compared(row: Row, other: Row) -> str:
    """The mean difference in points, and its p-value."""
    if row == other:
        return "–"
    found = paired(row.accuracy, other.accuracy)
    p = f"p = {found.p:.3f}" if found.p >= 0.001 else "p < 0.001"
    return f"{100 * found.mean:+.2f} ({p})"


def _line(found: Mapping[str, Row], alone: Row, kd: Row) -> str:
    first = next(iter(found.values()))
    cells = [first.family or "–", first.method]
    for beside in BESIDE:
        cells += _cells(found.get(beside), alone, kd)
    return f"| {' | '.join(cells)} |"


def _cells(row: Row | None, alone: Row, kd: Row) -> Iterator[str]:
    if row is None:
        yield from ("", "", "")
        return
    yield from (row.shown, compared(row, alone), compared(row, kd))
