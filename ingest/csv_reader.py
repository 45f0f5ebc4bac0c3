"""CSV: UTF-8 text with a header; comma, semicolon or tab; quotes doubled inside quotes.

Python's own parser reads it: it alone says exactly which row is broken. Numbers are parsed by arrow, a column at a
time. Lines, fields and blocks are capped, so memory does not depend on the file's shape.
"""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ingest.errors import BadRows
from ingest.lines import MAX_LINE_BYTES, Lines, bare_carriage_return
from ingest.reading import Reading
from ingest.rows import Scratch
from ingest.table import assign_roles
from ingest.text_table import BLOCK_BYTES, Block, check_columns, check_rows, read_rows, rows_of_a_block
from stillhouse.spec.limits import Limits
from stillhouse.spec.refusing import invalid, pointer, quoted
from stillhouse.spec.upload import IngestOptions

_DELIMITERS = ",;\t"
_QUOTES_HINT = 'Close every quote, and write a quote inside quotes as "".'


def read(path: Path, options: IngestOptions, limits: Limits, scratch: Scratch) -> Reading:
    """Read the table at `path`. Raises InvalidData or TooLarge."""
    bad = BadRows(options.bad_rows)
    with path.open("rb") as file:
        lines = Lines(file, row=0)
        delimiter, names = _header(lines, limits)
        roles = assign_roles(names, options)
        rows = _Rows(lines, delimiter, len(names), limits, bad)
        return read_rows(rows, names, roles, options, limits, bad, scratch)


def _header(lines: Lines, limits: Limits) -> tuple[str, list[str]]:
    """The delimiter and the column names."""
    text = next((line for line in lines if line.strip()), None)
    if text is None:
        raise invalid("/file", "empty_file", "The file holds no text.")
    if "\r" in text.rstrip("\r\n"):
        raise bare_carriage_return("/file", "The header")
    csv.field_size_limit(MAX_LINE_BYTES)
    splits = {delimiter: _split_header(text, delimiter) for delimiter in _DELIMITERS}
    delimiter = max(_DELIMITERS, key=lambda d: len(splits[d]))
    if len(splits[delimiter]) < 2 and not all(splits.values()):
        raise invalid("/file", "bad_quotes", "The header has a quote that is not closed on its line.", _QUOTES_HINT)
    names = [name.strip() for name in splits[delimiter]]
    check_columns(len(names), limits)
    if len(names) < 2:
        detail = f"The header has one column only, {quoted(names[0])}: a label and at least one other are needed."
        raise invalid("/file", "one_column", detail, "Separate columns by comma, semicolon or tab.")
    if all(_is_number(name) for name in names):
        detail = "The first line holds numbers only; it must name the columns."
        raise invalid("/file", "no_header", detail, "Add a line with column names on top.")
    return delimiter, names


def _split_header(text: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([text], delimiter=delimiter, strict=True))
    except csv.Error:  # quotes that make sense with another delimiter only
        return []


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


class _Rows:
    """Blocks of well-formed rows."""

    def __init__(self, lines: Lines, delimiter: str, width: int, limits: Limits, bad: BadRows) -> None:
        self._lines, self._width, self._limits, self._bad = lines, width, limits, bad
        self._reader = csv.reader(lines, delimiter=delimiter, strict=True)
        self.count = 0

    def blocks(self, used: Sequence[int]) -> Iterator[Block]:
        """Blocks of well-formed rows. Ragged ones go on the list of bad rows."""
        while True:
            first = self.count + 1
            rows = self._next_rows()
            if not rows:
                return
            numbers = np.arange(first, first + len(rows))
            if set(map(len, rows)) != {self._width}:
                fits = np.array([len(row) == self._width for row in rows])
                for i in np.flatnonzero(~fits):
                    self._add_ragged(first + int(i), len(rows[i]))
                rows, numbers = [row for row, fit in zip(rows, fits, strict=True) if fit], numbers[fits]
            if rows:
                cells = list(zip(*rows, strict=True))
                yield Block({i: cells[i] for i in used}, numbers)

    def _next_rows(self) -> list[list[str]]:
        """The next rows, blank lines left out, until a block is full. Raises at the first one that cannot be parsed."""
        rows: list[list[str]] = []
        most = rows_of_a_block(self._width)
        until = self._lines.bytes + BLOCK_BYTES
        self._lines.row = self.count + 1
        try:
            for row in self._reader:
                if row:
                    rows.append(row)
                    self.count += 1
                    self._lines.row = self.count + 1
                    if len(rows) >= most or self._lines.bytes > until:
                        break
        except csv.Error as error:
            raise _malformed(error, self._lines.at, f"Row {self._lines.row}") from None
        check_rows(self.count, self._limits)
        return rows

    def _add_ragged(self, number: int, cells: int) -> None:
        reason = f"The row has {cells} cells, the header {self._width}."
        self._bad.add(number, str(number), pointer("rows", number), "ragged_row", reason)


def _malformed(error: csv.Error, at: str, subject: str) -> Exception:
    message = str(error)
    if "new-line" in message:
        return bare_carriage_return(at, subject)
    if "field larger" in message:
        return invalid(
            at, "bad_quotes", f"{subject} has a cell that does not end: a quote is not closed.", _QUOTES_HINT
        )
    if "unexpected end" in message:
        return invalid(
            at, "bad_quotes", f"{subject} opens a quote that is not closed before the file ends.", _QUOTES_HINT
        )
    return invalid(at, "bad_quotes", f"{subject} has text behind a closing quote.", _QUOTES_HINT)
