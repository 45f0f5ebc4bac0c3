"""Columns of a table as they are read, block by block, and what each turns out to be.

Memory holds 4 bytes a cell, and 4 more while a column may still be categorical.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ingest.labels import plain
from stillhouse.spec.refusing import invalid, pointer, quoted

_FLOAT32_MAX = float(np.finfo(np.float32).max)
_EXACT_MAX = 2**24
_NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
_NOT_FINITE = r"(?i)^[+-]?(nan|inf|infinity)$"
# Numbers as people write them and machines do not: 0,5 and 1.234,5; 1,234 and 1 234 and 1_234; −5; ١٢٣.
_WRITTEN_NUMBER = r"^[+\-−]?(\p{Nd}+([.,٫]\p{Nd}*)?|\p{Nd}{1,3}([.,٬'’_ \x{a0}\x{202f}]\p{Nd}{3})+([.,٫]\p{Nd}*)?)$"
_REMEMBERED = 100
# A column of numbers and text is read as categories when the text is no accident: at least half of the cells, or a
# twentieth while all values are few and each comes up often (a number of doors: 2, 3, 4, 5more).
_FEW_VALUES = 20


@dataclass(frozen=True)
class Cell:
    """Why a cell cannot be used."""

    code: str
    reason: str


@dataclass(frozen=True)
class Column:
    """A finished column of N rows."""

    name: str
    numbers: NDArray[np.float32] | None
    """[N] of a numeric column; NaN where the cell cannot be used."""
    codes: NDArray[np.int32] | None
    """[N] of a categorical column, indices into `values`; −1 where the cell is empty."""
    values: tuple[str, ...]
    bad_cells: dict[int, Cell]
    """The first hundred by row index; cells not in here are empty."""
    is_mixed: bool = False
    """Categories of which some are numbers."""
    is_rounded: bool = False
    """Whole numbers that 32-bit floats do not hold exactly."""

    @property
    def bad(self) -> NDArray[np.bool_]:
        """[N]: True where the cell cannot be used."""
        if self.numbers is not None:
            return np.isnan(self.numbers)
        assert self.codes is not None
        return self.codes < 0

    def why(self, row: int) -> Cell:
        """Why the cell of this row index cannot be used."""
        return self.bad_cells.get(row) or Cell("empty_cell", f"Column {quoted(self.name)} is empty.")


class DistinctTexts:
    """Numbers the different texts of a column in order of appearance, until there are more than `most`."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.index: dict[str, int] | None = {}
        """None once there were too many."""
        self._codes: list[NDArray[np.int32]] = []

    def add(self, texts: Any) -> None:
        """Add a block, an arrow array of strings; null and blank texts get code −1."""
        if self.index is None:
            return
        encoded = texts if pa.types.is_dictionary(texts.type) else texts.dictionary_encode()
        positions = encoded.indices.cast(pa.int64()).fill_null(-1).to_numpy(zero_copy_only=False)
        used = np.unique(positions[positions >= 0])  # the dictionary of a file may hold more than is used
        if len(used) > self.most + 1:
            self._give_up()
            return
        table = np.full(len(encoded.dictionary) + 1, -1, np.int32)  # its last entry serves position −1
        for position, text in zip(used, encoded.dictionary.take(pa.array(used)).to_pylist(), strict=True):
            if text and (text := plain(text)):
                table[position] = self.index.setdefault(text, len(self.index))
        self._codes.append(table[positions])
        if len(self.index) > self.most:
            self._give_up()

    def _give_up(self) -> None:
        self.index, self._codes = None, []

    def codes(self) -> NDArray[np.int32]:
        """[N] of all blocks."""
        return np.concatenate(self._codes) if self._codes else np.zeros(0, np.int32)

    def texts(self) -> tuple[str, ...]:
        """The texts in the order of their codes."""
        return tuple(self.index or ())


class TextColumn:
    """A column whose cells came as text: numeric when they read as numbers, else categorical."""

    def __init__(self, name: str, max_values: int) -> None:
        self.name = name
        self._numbers: list[NDArray[np.float32]] = []
        self._distinct = DistinctTexts(max_values)
        self._bad_cells: dict[int, Cell] = {}
        self._rows = self._texts = self._written = self._empty = 0
        self._example = ""
        self._is_rounded = False

    def add(self, cells: Any) -> None:
        """Add a block, an arrow array of strings without nulls."""
        values = _cast(cells)
        if values is None:
            cells = pc.utf8_trim_whitespace(cells)
            values = self._lenient(cells)
        self._distinct.add(cells)
        self._add_numbers(values, cells)
        self._rows += len(cells)

    def finish(self) -> Column:
        """Decide what the column is.

        Raises InvalidData for one without values, for text of too many values, and for numbers in a form not read here.
        """
        filled = self._rows - self._empty
        if filled == 0:
            raise invalid(
                pointer("columns", self.name),
                "empty_column",
                f"Column {quoted(self.name)} has no value in any row.",
                _ignore_hint(self.name),
            )
        if self._is_categorical(filled):
            return self._categorical()
        return Column(self.name, _joined(self._numbers), None, (), self._bad_cells, is_rounded=self._is_rounded)

    def _is_categorical(self, filled: int) -> bool:
        if self._texts * 2 >= filled:
            return True
        if self._distinct.index is None or self._texts == 0:
            return False
        few = len(self._distinct.index)
        return few <= _FEW_VALUES and few * 10 <= filled and self._texts * 20 >= filled

    def _categorical(self) -> Column:
        if self._written * 2 > self._texts:
            raise self._not_categories()
        if self._distinct.index is None:
            raise too_many_categories(self.name, self._distinct.most)
        mixed = self._texts < self._rows - self._empty
        return Column(self.name, None, self._distinct.codes(), self._distinct.texts(), {}, is_mixed=mixed)

    def _not_categories(self) -> Exception:
        """The refusal of numbers that would be learnt as so many words, of which none is near another."""
        detail = (
            f"Column {quoted(self.name)} holds numbers such as {quoted(self._example)}, which is not how they are read."
        )
        hint = "Write numbers as -1234.5: a point before decimals, nothing between thousands. Name categories in words."
        return invalid(pointer("columns", self.name), "not_a_number", detail, hint)

    def _lenient(self, cells: Any) -> NDArray[np.float64]:
        """Numbers where the text is one, NaN elsewhere; counts text and empty cells."""
        numeric = pc.match_substring_regex(cells, _NUMBER)
        values = pc.if_else(numeric, cells, pa.scalar("nan", cells.type)).cast(pa.float64()).to_numpy(False)
        empty = pc.equal(cells, "")
        named = pc.match_substring_regex(cells, _NOT_FINITE)
        text = pc.invert(pc.or_(pc.or_(numeric, empty), named)).to_numpy(False)
        self._empty += pc.sum(empty).as_py() or 0
        self._texts += int(text.sum())
        texts = cells.filter(pa.array(text))
        written = texts.filter(pc.match_substring_regex(texts, _WRITTEN_NUMBER))
        self._written += len(written)
        self._example = self._example or (written[0].as_py() if len(written) else "")
        for i in np.flatnonzero(text)[: _REMEMBERED - len(self._bad_cells)]:
            self._bad_cells[self._rows + int(i)] = _not_a_number(self.name, cells[int(i)].as_py())
        return np.asarray(values)

    def _add_numbers(self, values: NDArray[np.float64], cells: Any) -> None:
        finite = np.abs(values) <= _FLOAT32_MAX
        beyond = np.flatnonzero(~finite)
        for i in beyond[:_REMEMBERED]:
            text = cells[int(i)].as_py()
            if text and self._rows + int(i) not in self._bad_cells and len(self._bad_cells) < _REMEMBERED:
                self._bad_cells[self._rows + int(i)] = _not_finite(self.name, text)
        numbers = np.where(finite, values, np.nan).astype(np.float32)
        self._is_rounded |= _rounds_whole_numbers(values, numbers)
        self._numbers.append(numbers)


class NumberColumn:
    """A column whose cells came as numbers."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._numbers: list[NDArray[np.float32]] = []
        self._bad_cells: dict[int, Cell] = {}
        self._rows = 0
        self._is_rounded = False

    def add(self, cells: Any) -> None:
        """Add a block, an arrow array of numbers; null is an empty cell."""
        missing = cells.is_null().to_numpy(zero_copy_only=False)
        values = cells.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        finite = np.abs(values) <= _FLOAT32_MAX
        for i in np.flatnonzero(~finite & ~missing)[: _REMEMBERED - len(self._bad_cells)]:
            self._bad_cells[self._rows + int(i)] = _not_finite(self.name, str(values[i]))
        numbers = np.where(finite, values, np.nan).astype(np.float32)
        self._is_rounded |= _rounds_whole_numbers(values, numbers)
        self._numbers.append(numbers)
        self._rows += len(cells)

    def finish(self) -> Column:
        """The numeric column."""
        return Column(self.name, _joined(self._numbers), None, (), self._bad_cells, is_rounded=self._is_rounded)


class CategoryColumn:
    """A column whose cells came as values of a text or truth type."""

    def __init__(self, name: str, max_values: int) -> None:
        self.name = name
        self._distinct = DistinctTexts(max_values)

    def add(self, cells: Any) -> None:
        """Add a block, an arrow array of strings; null is an empty cell."""
        self._distinct.add(cells)

    def finish(self) -> Column:
        """The categorical column. Raises InvalidData for too many values."""
        if self._distinct.index is None:
            raise too_many_categories(self.name, self._distinct.most)
        return Column(self.name, None, self._distinct.codes(), self._distinct.texts(), {})


def too_many_categories(name: str, most: int) -> Exception:
    """The refusal of a text column that is free text, dates or ids rather than categories."""
    detail = f"Text column {quoted(name)} has more than the limit of {most:,} different values."
    return invalid(pointer("columns", name), "too_many_categories", detail, _ignore_hint(name))


def _ignore_hint(name: str) -> str:
    return f"Leave it out with ignore={name}, or turn it into numbers."


def _cast(cells: Any) -> NDArray[np.float64] | None:
    try:
        return np.asarray(cells.cast(pa.float64()).to_numpy(zero_copy_only=False))
    except pa.ArrowInvalid:
        return None


def _not_a_number(name: str, text: str) -> Cell:
    decimal_comma = " Decimals need a point." if text.count(",") == 1 and text.replace(",", "").isdigit() else ""
    return Cell("not_a_number", f"Column {quoted(name)} is {quoted(text)}, not a number.{decimal_comma}")


def _not_finite(name: str, text: str) -> Cell:
    return Cell("not_finite", f"Column {quoted(name)} is {quoted(text)}: not finite in 32-bit arithmetic.")


def _rounds_whole_numbers(values: NDArray[np.float64], numbers: NDArray[np.float32]) -> bool:
    large = np.abs(numbers) >= _EXACT_MAX
    return bool((numbers[large] != values[large]).any())


def _joined(blocks: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    """All blocks as one, and the blocks no longer in memory."""
    whole = np.concatenate(blocks)
    blocks.clear()
    return whole
