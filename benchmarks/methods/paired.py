"""Student's t-test on paired differences."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev


@dataclass(frozen=True)
class Difference:
    """Mean of the differences, and how probable one as large as this is when there is none."""

    mean: float
    p: float


def paired(ours: Sequence[float], theirs: Sequence[float]) -> Difference:
    """Two-sided, of two or more pairs. Equal differences have p = 0, and p = 1 when they are 0."""
    differences = [a - b for a, b in zip(ours, theirs, strict=True)]
    found, deviation = mean(differences), stdev(differences)
    if deviation == 0:
        return Difference(found, 1.0 if found == 0 else 0.0)
    t = found / (deviation / math.sqrt(len(differences)))
    return Difference(found, two_sided(t, freedom=len(differences) - 1))


def interval(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float]:
    """95 % confidence interval of the mean difference, of two or more pairs: what so few pairs can rule out."""
    differences = [a - b for a, b in zip(ours, theirs, strict=True)]
    found, freedom = mean(differences), len(differences) - 1
    reach = _beyond(0.05, freedom=freedom) * stdev(differences) / math.sqrt(len(differences))
    return found - reach, found + reach


def two_sided(t: float, *, freedom: int) -> float:
    """P(|T| ≥ |t|) of Student's t with a whole number of degrees of freedom, by its finite series (Abramowitz & Stegun
    1964, 26.7.3 and 26.7.4)."""
    angle = math.atan(abs(t) / math.sqrt(freedom))
    cosine, sine = math.cos(angle), math.sin(angle)
    odd = freedom % 2
    term, total = (cosine, 0.0) if odd else (1.0, 0.0)
    for k in range(1 + odd, freedom, 2):
        total += term
        term *= cosine**2 * k / (k + 1)
    inside = 2 / math.pi * (angle + sine * total) if odd else sine * total
    return max(0.0, 1.0 - inside)


def _beyond(p: float, *, freedom: int) -> float:
    """The t with P(|T| ≥ t) = `p`, by halving: the probability falls with t."""
    low, high = 0.0, 1e6
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if two_sided(middle, freedom=freedom) > p else (low, middle)
    return high
