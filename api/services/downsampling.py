"""Fewer points with the same look: largest triangle, three buckets (Steinarsson 2013, skemman.is/handle/1946/15343)."""

from collections.abc import Sequence

Point = tuple[int, float]


def lttb(points: Sequence[Point], wanted: int) -> list[Point]:
    """At most `wanted` (≥ 2) of `points`, which rise by step. The first and the last always stay.

    The points between are cut into equal buckets; of each the point stays that spans the largest triangle with the
    one kept before it and the mean of the bucket after it.
    """
    if len(points) <= wanted:
        return list(points)
    if wanted == 2:
        return [points[0], points[-1]]
    size = (len(points) - 2) / (wanted - 2)
    edges = [1 + int(size * bucket) for bucket in range(wanted - 2)] + [len(points) - 1, len(points)]
    kept = [points[0]]
    for start, end, after in zip(edges, edges[1:], edges[2:], strict=False):
        kept.append(_farthest(kept[-1], points[start:end], _mean(points[end:after])))
    return [*kept, points[-1]]


def _mean(points: Sequence[Point]) -> tuple[float, float]:
    return sum(step for step, _ in points) / len(points), sum(value for _, value in points) / len(points)


def _farthest(before: Point, bucket: Sequence[Point], after: tuple[float, float]) -> Point:
    (x0, y0), (x2, y2) = before, after
    # Twice the area of the triangle; the factor does not matter for the largest.
    return max(bucket, key=lambda p: abs((x0 - x2) * (p[1] - y0) - (x0 - p[0]) * (y2 - y0)))
