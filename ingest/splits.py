"""Who trains, who validates, who tests: made by a seed, stratified by class, with equal rows kept together.

Equal rows form a group and a group is never torn apart, so a made split cannot leak. A group counts for the class
of its first row. Rows without a label stay in the training split, and with them all rows equal to them.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ingest.labels import UNLABELLED
from stillhouse.spec.errors import FieldError
from stillhouse.spec.facts import SPLITS
from stillhouse.spec.refusing import all_invalid, invalid, pointer, quoted
from stillhouse.spec.upload import IngestOptions

TRAIN, VALIDATION, TEST = range(3)
SPLIT_NAMES = {"train": TRAIN, "validation": VALIDATION, "val": VALIDATION, "valid": VALIDATION, "test": TEST}
"""How uploads spell the splits, in lower case."""

_SPLIT_HINT = "Split values are train, validation (or val, valid) and test."
_TRAIN_HINT = "Add training rows of the class, or take its rows out of the other splits."


@dataclass(frozen=True)
class Splits:
    """A split for each row."""

    of_row: NDArray[np.uint8]
    """[N], index into `stillhouse.spec.SPLITS`."""
    made: tuple[int, ...]
    """Splits that were drawn here; the others came with the upload."""


def assign_splits(
    labels: NDArray[np.int64],
    groups: NDArray[np.int64],
    given: NDArray[np.uint8] | None,
    classes: tuple[str, ...],
    options: IngestOptions,
) -> Splits:
    """Keep the splits an upload came with and draw the missing ones from its training rows.

    `labels` [N] are class indices (-1: none), `groups` [N] the numbers of equal rows. Shares of drawn splits are those
    of `options`, of the rows drawn from. Raises InvalidData when a class has too few different rows to be in every
    split, when there is no training split, or when a class appears outside the training split alone.
    """
    of_row = np.zeros(len(labels), np.uint8) if given is None else given.copy()
    present = set(np.unique(of_row).tolist())
    if TRAIN not in present:
        raise invalid("/file", "no_train_split", "No row belongs to the training split.", _SPLIT_HINT)
    shares = {VALIDATION: options.validation, TEST: options.test}
    missing = {split: share for split, share in shares.items() if split not in present and share > 0}
    if missing:
        kept = np.isin(groups, groups[labels == UNLABELLED])
        rows = np.flatnonzero((of_row == TRAIN) & ~kept)
        of_row[rows] = _draw(labels[rows], groups[rows], missing, classes, options.seed)
    _check_train_knows_every_class(labels, of_row, classes)
    return Splits(of_row, tuple(missing))


def _draw(
    labels: NDArray[np.int64],
    groups: NDArray[np.int64],
    shares: dict[int, float],
    classes: tuple[str, ...],
    seed: int,
) -> NDArray[np.uint8]:
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    leader = np.full(len(sizes), len(labels))
    np.minimum.at(leader, group, np.arange(len(labels)))
    group_class = labels[leader]
    _check_enough(group_class, len(shares) + 1, classes)
    split_of_group = np.zeros(len(sizes), np.uint8)
    order = np.argsort(group_class, kind="stable")
    bounds = np.searchsorted(group_class[order], np.arange(len(classes) + 1))
    for c in range(len(classes)):
        members = order[bounds[c] : bounds[c + 1]]
        if len(members):
            # A stream of its own for each class: adding a class leaves the others' draws alone.
            random = np.random.default_rng((seed, c))
            split_of_group[members] = _draw_class(sizes[members], shares, random)
    return split_of_group[group]


def _draw_class(sizes: NDArray[np.int64], shares: dict[int, float], random: np.random.Generator) -> NDArray[np.uint8]:
    """A split for each group of one class, given the groups' sizes. Every split gets at least one group."""
    rows = int(sizes.sum())
    lacking = {split: round(rows * share) for split, share in shares.items()}
    lacking[TRAIN] = rows - sum(lacking.values())
    empty = set(lacking)
    shuffled = random.permutation(len(sizes))
    largest_first = shuffled[np.argsort(-sizes[shuffled], kind="stable")]
    several = int((sizes > 1).sum())
    out = np.zeros(len(sizes), np.uint8)
    # Groups of several rows go one by one to the split that lacks most; single rows then fill up what is left.
    for position, group in enumerate(largest_first[:several]):
        must_fill = len(empty) == len(sizes) - position
        split = max(empty if must_fill else lacking, key=lambda s: (lacking[s], -s))
        out[group] = split
        lacking[split] -= int(sizes[group])
        empty.discard(split)
    counts = _fill(lacking, empty, len(sizes) - several)
    out[largest_first[several:]] = np.repeat(np.array(list(counts), np.uint8), list(counts.values()))
    return out


def _fill(lacking: dict[int, int], empty: set[int], rows: int) -> dict[int, int]:
    """How many of `rows` single rows each split gets: what it lacks, at least one if it is empty, `rows` in all."""
    least = {split: int(split in empty) for split in lacking}
    counts = {split: max(least[split], lack) for split, lack in lacking.items()}
    excess = sum(counts.values()) - rows
    for split in sorted(counts, key=lambda s: -counts[s]):
        less = max(0, min(excess, counts[split] - least[split]))
        counts[split] -= less
        excess -= less
    counts[TRAIN] -= min(0, excess)
    return counts


def _check_enough(group_class: NDArray[np.int64], splits: int, classes: tuple[str, ...]) -> None:
    counts = np.bincount(group_class, minlength=len(classes))
    errors = [
        FieldError(
            pointer=pointer("classes", classes[c]),
            code="class_too_small",
            detail=f"Class {quoted(classes[c])} has {counts[c]} different rows, {splits} are needed.",
        )
        for c in np.flatnonzero((counts > 0) & (counts < splits))
    ]
    if errors:
        detail = f"Each class needs at least {splits} different rows, one for each split; equal rows stay together."
        hint = "Add rows, leave the class out, or upload the data with splits of its own."
        raise all_invalid(detail, errors, hint)


def _check_train_knows_every_class(
    labels: NDArray[np.int64], of_row: NDArray[np.uint8], classes: tuple[str, ...]
) -> None:
    trained = np.bincount(labels[(of_row == TRAIN) & (labels != UNLABELLED)], minlength=len(classes)) > 0
    errors = []
    for split in (VALIDATION, TEST):
        counts = np.bincount(labels[of_row == split], minlength=len(classes))
        for c in np.flatnonzero((counts > 0) & ~trained):
            detail = f"Class {quoted(classes[c])} has {counts[c]} {SPLITS[split]} rows and no training row."
            errors.append(FieldError(pointer=pointer("classes", classes[c]), code="class_not_in_train", detail=detail))
    if errors:
        raise all_invalid("The training split lacks a class that is asked for elsewhere.", errors, _TRAIN_HINT)
