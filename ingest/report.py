"""What a careful person would want to know about a dataset before training on it."""

import numpy as np
from numpy.typing import NDArray

from ingest.labels import UNLABELLED
from ingest.reading import Reading
from ingest.splits import TEST, TRAIN, VALIDATION, Splits
from stillhouse.spec.facts import SPLITS, DataFacts, DataReport, Feature, Split, StoredDataset
from stillhouse.spec.refusing import quoted, some

_IMBALANCE = 10


def describe(reading: Reading, splits: Splits, groups: NDArray[np.int64]) -> StoredDataset:
    """Facts and report of the rows in `reading`, split by `splits`; equal rows share a number in `groups` [N]."""
    per_split = [reading.labels[splits.of_row == split] for split in range(len(SPLITS))]
    counts = [np.bincount(labels[labels != UNLABELLED], minlength=len(reading.classes)) for labels in per_split]
    unlabelled = int((reading.labels == UNLABELLED).sum())
    facts = DataFacts(
        task=reading.task,
        shape=reading.rows.shape,
        dtype="uint8" if reading.rows.dtype == np.uint8 else "float32",
        classes=reading.classes,
        rows={name: len(labels) for name, labels in zip(SPLITS, per_split, strict=True)},
        unlabelled=unlabelled,
        features=reading.features,
    )
    across = _across_splits(splits.of_row, groups)
    report = DataReport(
        rows_read=reading.rows_read,
        rows_kept=reading.rows.count,
        rows_dropped=reading.bad.count,
        dropped=reading.bad.dropped,
        class_counts={
            name: dict(zip(reading.classes, map(int, count), strict=True))
            for name, count in zip(SPLITS, counts, strict=True)
        },
        unlabelled=unlabelled,
        duplicates=_repeats(reading.labels, groups),
        duplicates_across_splits=across,
        notes=[*reading.notes, *_notes(reading, splits, groups, counts, across)],
    )
    return StoredDataset(facts=facts, report=report)


def _repeats(labels: NDArray[np.int64], groups: NDArray[np.int64]) -> int:
    pairs = groups * (int(labels.max()) - UNLABELLED + 1) + labels
    return len(labels) - len(np.unique(pairs))


def _across_splits(of_row: NDArray[np.uint8], groups: NDArray[np.int64]) -> int:
    in_train = np.zeros(int(groups.max()) + 1, bool)
    in_train[groups[of_row == TRAIN]] = True
    return int(in_train[groups[of_row != TRAIN]].sum())


def _notes(
    reading: Reading,
    splits: Splits,
    groups: NDArray[np.int64],
    counts: list[NDArray[np.int64]],
    across: int,
) -> list[str]:
    return [
        *_unlabelled_notes(reading.labels),
        *_split_notes(splits, reading, counts),
        *_balance_notes(reading.classes, sum(counts[1:], start=counts[0])),
        *_contradiction_notes(reading.labels, groups),
        *_leak_notes(across),
        *_constant_notes(reading.features, reading.rows.constant_inputs()),
    ]


def _unlabelled_notes(labels: NDArray[np.int64]) -> list[str]:
    if not (count := int((labels == UNLABELLED).sum())):
        return []
    return [f"{count:,} training rows have no label: a student learns from them what the teacher says of them."]


def _split_notes(splits: Splits, reading: Reading, counts: list[NDArray[np.int64]]) -> list[str]:
    notes = []
    made: list[Split] = [SPLITS[split] for split in splits.made]
    if made and reading.given is not None and set(np.unique(reading.given).tolist()) != {TRAIN}:
        notes.append(f"The {' and '.join(made)} split was drawn from the training rows: the upload has none.")
    for split in (VALIDATION, TEST):
        absent = np.flatnonzero((counts[TRAIN] > 0) & (counts[split] == 0))
        if counts[split].sum() and len(absent):
            names = some([quoted(reading.classes[c]) for c in absent])
            notes.append(f"The {SPLITS[split]} split has no row of {names}: it cannot measure them.")
    return notes


def _balance_notes(classes: tuple[str, ...], counts: NDArray[np.int64]) -> list[str]:
    notes = []
    if len(unused := np.flatnonzero(counts == 0)):
        notes.append(f"No row belongs to {some([quoted(classes[c]) for c in unused])}.")
    most, least = int(counts.argmax()), int(np.where(counts > 0, counts, counts.max()).argmin())
    if counts[most] > _IMBALANCE * counts[least]:
        notes.append(
            f"The classes are far from balanced: {counts[most]:,} rows of {quoted(classes[most])}, "
            f"{counts[least]:,} of {quoted(classes[least])}. Accuracy alone says little here."
        )
    return notes


def _contradiction_notes(labels: NDArray[np.int64], groups: NDArray[np.int64]) -> list[str]:
    size = int(groups.max()) + 1
    labels, groups = labels[labels != UNLABELLED], groups[labels != UNLABELLED]
    low = np.full(size, np.iinfo(np.int64).max)
    high = np.full(size, -1)
    np.minimum.at(low, groups, labels)
    np.maximum.at(high, groups, labels)
    contradictory = (low != high)[groups]
    if not contradictory.any():
        return []
    return [
        f"{int(contradictory.sum()):,} rows equal another row that has a different label: "
        "no model can get all of them right."
    ]


def _leak_notes(across: int) -> list[str]:
    if not across:
        return []
    return [f"{across:,} validation or test rows also stand in the training split: they flatter every accuracy."]


def _constant_notes(features: tuple[Feature, ...], constant: NDArray[np.bool_]) -> list[str]:
    starts = np.cumsum([0, *(feature.width for feature in features)])[:-1]
    names = [
        quoted(feature.name)
        for feature, start in zip(features, starts, strict=True)
        if feature.width == 1 and constant[start]
    ]
    if not names:
        return []
    return [f"Constant columns, which teach nothing: {some(names)}."]
