"""Numbers, sizes, times and foreign words as people read them."""

from datetime import UTC, datetime
from itertools import pairwise

_UNITS = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))


def clean(text: str) -> str:
    """`text` without control characters: words from elsewhere must not steer the terminal."""
    return "".join(c if c.isprintable() or c in "\n\t" else "�" for c in text)


def percent(share: float | None) -> str:
    """0.9815 → 98.15 %. What is not all is never shown as 100 %."""
    if share is None:
        return "–"
    return "99.99 %" if 0.9999 < share < 1 else f"{100 * share:.2f} %"


def size(count: int) -> str:
    """Bytes in powers of 1,000: 6132000 → 6.1 MB."""
    if count < 1000:
        return f"{count} B"
    power = next((p for p in (1, 2, 3) if count / 1000**p < 999.95), 4)
    return f"{count / 1000**power:.1f} {('kB', 'MB', 'GB', 'TB')[power - 1]}"


def duration(seconds: float) -> str:
    """The two largest units: 3725 → 1 h 2 min."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    for (unit, length), (below, short) in pairwise(_UNITS):
        if whole >= length:
            rest = whole % length // short
            return f"{whole // length} {unit}" + (f" {rest} {below}" if rest else "")
    raise AssertionError("a minute or more has a unit")


def age(moment: datetime) -> str:
    """How long ago."""
    return f"{duration((datetime.now(UTC) - moment).total_seconds())} ago"


def milliseconds(value: float) -> str:
    """A latency to three digits."""
    return f"{value:.3g} ms" if value < 1000 else f"{value:,.0f} ms"
