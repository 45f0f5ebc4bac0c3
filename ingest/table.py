"""From finished columns to stored rows: bad rows out, labels to classes, one float32 input per number or category."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ingest.columns import Cell, Column, DistinctTexts
from ingest.errors import BadRows
from ingest.labels import UNLABELLED, check_name, is_missing, make_classes, plain, too_many_classes
from ingest.reading import Reading
from ingest.rows import RowSpool, Scratch
from ingest.splits import SPLIT_NAMES, TRAIN
from stillhouse.spec.errors import FieldError, InvalidData
from stillhouse.spec.facts import Feature
from stillhouse.spec.limits import Limits
from stillhouse.spec.refusing import all_invalid, invalid, pointer, quoted, some, too_large
from stillhouse.spec.upload import LABEL_NAMES, IngestOptions

_BLOCK_BYTES = 8 * 1024**2
_LISTED = 100


class ColumnReader(Protocol):
    """One feature column while it is read."""

    name: str

    def add(self, cells: Any) -> None:
        """Take a block of cells."""

    def finish(self) -> Column:
        """Say what the column is."""


@dataclass(frozen=True)
class Roles:
    """What each column of a table is for, by position."""

    label: int
    split: int | None
    features: tuple[int, ...]

    @property
    def used(self) -> tuple[int, ...]:
        """Positions of all columns that are read."""
        return tuple(sorted({self.label, *self.features, *([] if self.split is None else [self.split])}))


def assign_roles(names: Sequence[str], options: IngestOptions) -> Roles:
    """Find the label, split and feature columns among `names`. Raises InvalidData naming what is not there."""
    _check_names(names)
    label = None if options.label is None else _named("label", options.label, names)
    split = None if options.split_column is None else _named("split_column", options.split_column, names)
    ignored = {_named("ignore", name, names) for name in options.ignore}
    if label is None:
        label = _label_column(names, {split, *ignored})
    taken = {label, split, *ignored}
    features = tuple(i for i in range(len(names)) if i not in taken)
    if not features:
        raise invalid("/file", "no_features", "No column is left to learn from: all are label, split or ignored.")
    return Roles(label, split, features)


class Table:
    """A table while it is read: its columns by role, and where each row stood in the file."""

    def __init__(
        self,
        names: Sequence[str],
        roles: Roles,
        features: Sequence[ColumnReader],
        limits: Limits,
        bad: BadRows,
        *,
        keep_unlabelled: bool = False,
    ) -> None:
        self._names, self._roles, self._limits, self._bad = names, roles, limits, bad
        self._features, self._keep_unlabelled = features, keep_unlabelled
        self._label = DistinctTexts(limits.max_classes)
        self._split = DistinctTexts(_LISTED) if roles.split is not None else None
        self._row_numbers: list[NDArray[np.int64]] = []

    def add(self, columns: Mapping[int, Any], row_numbers: NDArray[np.int64]) -> None:
        """Add a block: arrow arrays by position in the file (labels and splits as strings), 1-based row numbers."""
        for reader, position in zip(self._features, self._roles.features, strict=True):
            reader.add(columns[position])
        self._label.add(columns[self._roles.label])
        if self._label.index is None:
            raise too_many_classes(pointer("columns", self._names[self._roles.label]), self._limits)
        if self._split is not None and self._roles.split is not None:
            self._split.add(columns[self._roles.split])
        self._row_numbers.append(row_numbers)

    def finish(self, rows_read: int, scratch: Scratch) -> Reading:
        """Sort out the bad rows and store the others. Raises InvalidData or TooLarge."""
        if rows_read == 0:
            raise invalid("/file", "no_rows", "There is a header but no data row.")
        columns = self._finished_columns()
        label, label_texts = self._label_codes()
        split = self._split_indices()
        usable = self._usable(columns, label, split)
        self._bad.check(rows_read)
        used = {label_texts[code] for code in np.unique(label[usable]) if code >= 0}
        at = pointer("columns", self._names[self._roles.label])
        classes, index = make_classes(used, at, self._limits)
        features = tuple(_feature(column, usable) for column in columns)
        # Code −1, no label, takes the last.
        class_of_code = np.array([*(index.get(text, -1) for text in label_texts), UNLABELLED], np.int64)
        return Reading(
            task="tabular-classification",
            rows=self._stored(columns, features, usable, scratch),
            labels=class_of_code[label[usable]],
            classes=classes,
            given=None if split is None else split[usable].astype(np.uint8),
            rows_read=rows_read,
            bad=self._bad,
            features=features,
            notes=_notes(columns),
        )

    def _finished_columns(self) -> list[Column]:
        """All columns, or one refusal that names every column that cannot be used."""
        columns: list[Column] = []
        errors: list[FieldError] = []
        hint: str | None = None
        for reader in self._features if self._row_numbers else ():
            try:
                columns.append(reader.finish())
            except InvalidData as error:
                errors += error.errors
                hint = error.hint
        if len(errors) == 1:
            raise all_invalid(errors[0].detail, errors, hint)
        if errors:
            raise all_invalid(f"{len(errors)} columns cannot be used.", errors, "Leave them out with ignore.")
        return columns

    def _label_codes(self) -> tuple[NDArray[np.int32], tuple[str, ...]]:
        codes, texts = self._label.codes(), self._label.texts()
        missing = [code for code, text in enumerate(texts) if is_missing(text)]
        codes[np.isin(codes, missing)] = -1
        return codes, texts

    def _split_indices(self) -> NDArray[np.int64] | None:
        if self._split is None:
            return None
        if self._split.index is None:
            raise _not_splits(self._names[self._roles.split or 0])
        by_code = [SPLIT_NAMES.get(text.lower(), -1) for text in self._split.texts()]
        return np.array([*by_code, -1], np.int64)[self._split.codes()]  # code −1, an empty cell, takes the last

    def _usable(
        self, columns: list[Column], label: NDArray[np.int32], split: NDArray[np.int64] | None
    ) -> NDArray[np.bool_]:
        """[N]: True for the rows that are kept; the others go on the list of bad rows."""
        lacks_label = self._lacks_label(label, split)
        bad = lacks_label.copy()
        if split is not None:
            bad |= split < 0
        for column in columns:
            bad |= column.bad
        rows = np.flatnonzero(bad)
        numbers = np.concatenate(self._row_numbers) if self._row_numbers else np.zeros(0, np.int64)
        for row in rows[:_LISTED]:
            cell = self._why(int(row), columns, lacks_label, split)
            number = int(numbers[row])
            self._bad.add(number, str(number), pointer("rows", number), cell.code, cell.reason)
        self._bad.add_unnamed(max(0, len(rows) - _LISTED))
        return ~bad

    def _lacks_label(self, label: NDArray[np.int32], split: NDArray[np.int64] | None) -> NDArray[np.bool_]:
        """[N]: True for the rows that have no label and need one: all, or those outside the training split."""
        if not self._keep_unlabelled:
            return label < 0
        return np.zeros(len(label), bool) if split is None else (label < 0) & (split > TRAIN)

    def _why(
        self, row: int, columns: list[Column], lacks_label: NDArray[np.bool_], split: NDArray[np.int64] | None
    ) -> Cell:
        if lacks_label[row]:
            needed = ", and only a training row can do without" if self._keep_unlabelled else ""
            name = quoted(self._names[self._roles.label])
            return Cell("empty_label", f"The label, column {name}, is empty{needed}.")
        if split is not None and split[row] < 0:
            name = quoted(self._names[self._roles.split or 0])
            return Cell("bad_split", f"Column {name} says none of train, validation (or val, valid), test.")
        return next(column.why(row) for column in columns if column.bad[row])

    def _stored(
        self, columns: list[Column], features: tuple[Feature, ...], usable: NDArray[np.bool_], scratch: Scratch
    ) -> RowSpool:
        width = sum(feature.width for feature in features)
        if width > self._limits.max_columns:
            detail = f"The columns become {width:,} inputs, one for each category; the limit is "
            raise too_large(
                "/file",
                "too_many_columns",
                f"{detail}{self._limits.max_columns:,}.",
                "Ignore text columns with many different values.",
            )
        spool = RowSpool(scratch, (width,), np.float32, self._limits)
        for block in _encoded(columns, features, np.flatnonzero(usable)):
            spool.append(block)
        return spool


def _notes(columns: list[Column]) -> list[str]:
    notes = []
    if mixed := [quoted(column.name) for column in columns if column.is_mixed]:
        notes.append(f"Columns that mix numbers and text were read as categories: {some(mixed)}.")
    if rounded := [quoted(column.name) for column in columns if column.is_rounded]:
        notes.append(f"Columns with whole numbers that 32-bit floats round (ids, times?): {some(rounded)}.")
    return notes


def _feature(column: Column, usable: NDArray[np.bool_]) -> Feature:
    if column.codes is None:
        return Feature(name=column.name)
    used = sorted(column.values[code] for code in np.unique(column.codes[usable]))
    for value in used:
        check_name(value, pointer("columns", column.name), f"category of column {quoted(column.name)}")
    return Feature(name=column.name, kind="categorical", categories=tuple(used))


def _encoded(
    columns: list[Column], features: tuple[Feature, ...], rows: NDArray[np.int64]
) -> Iterator[NDArray[np.float32]]:
    """Blocks [n, inputs] of the rows: a number as it is, a category as one 1 among zeros."""
    width = sum(feature.width for feature in features)
    size = max(1, _BLOCK_BYTES // (4 * width))
    for start in range(0, len(rows), size):
        block = rows[start : start + size]
        out = np.zeros((len(block), width), np.float32)
        at = 0
        for column, feature in zip(columns, features, strict=True):
            if column.numbers is not None:
                out[:, at] = column.numbers[block]
            elif column.codes is not None:
                place = _places(column, feature)
                out[np.arange(len(block)), at + place[column.codes[block]]] = 1
            at += feature.width
        yield out


def _places(column: Column, feature: Feature) -> NDArray[np.int64]:
    """Position of each code's text among the categories; codes that were dropped are not asked for."""
    place = {text: i for i, text in enumerate(feature.categories)}
    return np.array([place.get(text, -1) for text in column.values], np.int64)


def _named(option: str, wanted: str, names: Sequence[str]) -> int:
    """Position of the column that an option names."""
    found = next((i for i, name in enumerate(names) if plain(name) == plain(wanted)), None)
    if found is None:
        detail = f"There is no column {quoted(wanted)}; the columns are {_listed(names)}."
        raise invalid(f"?{option}", "no_such_column", detail)
    return found


def _label_column(names: Sequence[str], taken: Collection[int | None]) -> int:
    """Position of the column with one of the usual names; those that have another use are not asked."""
    free = {i: plain(name) for i, name in enumerate(names) if i not in taken}
    for usual in LABEL_NAMES:
        # `label` comes before `Label`, or chance would choose one and the other would give its answer away.
        spelt = [i for i, name in free.items() if name == usual] or [
            i for i, name in free.items() if name.lower() == usual
        ]
        if spelt:
            return spelt[0]
    detail = f"No column is named {', '.join(LABEL_NAMES)}; the columns are {_listed([names[i] for i in free])}."
    raise invalid("?label", "no_label", detail, "Say which column is the class with label=….")


def _check_names(names: Sequence[str]) -> None:
    errors = []
    seen: set[str] = set()
    for position, name in enumerate(names, 1):
        at = pointer("columns", name or position)
        if not name:
            detail = f"Column {position} has no name. (pandas writes its index so: use index=False.)"
            errors.append(FieldError(pointer=at, code="empty_header", detail=detail))
        elif plain(name) in seen:
            detail = f"There are two columns named {quoted(name)}: rename one."
            errors.append(FieldError(pointer=at, code="duplicate_header", detail=detail))
        seen.add(plain(name))
    if errors:
        raise all_invalid(errors[0].detail if len(errors) == 1 else f"{len(errors)} column names are wrong.", errors)
    for name in names:
        check_name(name, pointer("columns", name), "column name")


def _not_splits(name: str) -> Exception:
    detail = f"Column {quoted(name)} has more than {_LISTED} different values: it does not say the split."
    return invalid("?split_column", "bad_split", detail, "Its values must be train, validation (or val, valid), test.")


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(quoted(name) for name in names[:20])
    return shown if len(names) <= 20 else f"{shown} and {len(names) - 20} more"
