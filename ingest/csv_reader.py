"""CSV: UTF-8 text with a header; comma, semicolon or tab; quotes doubled inside quotes.

Python's own parser reads it: it alone says exactly which row is broken. Numbers are parsed by arrow, a column at a
time. Lines, fields and blocks are capped, so memory does not depend on the file's shape.
"""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa

from ingest.columns import TextColumn
from ingest.errors import BadRows
from ingest.reading import Reading
from ingest.rows import Scratch
from ingest.table import Table, assign_roles
from stillhouse.spec.limits import Limits
from stillhouse.spec.refusing import invalid, pointer, quoted, too_large
from stillhouse.spec.upload import IngestOptions

_MAX_LINE_BYTES = 8 * 1024**2
_BLOCK_BYTES = 32 * 1024**2
_BLOCK_ROWS = 16_384
_BLOCK_CELLS = 2_000_000
_DELIMITERS = ",;\t"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_ENCODING_HINT = "Save the file as UTF-8."
_NO_TEXT_HINT = "Save the file as UTF-8, or upload Parquet, .npz or a ZIP of images."
_QUOTES_HINT = 'Close every quote, and write a quote inside quotes as "".'


def read(path: Path, options: IngestOptions, limits: Limits, scratch: Scratch) -> Reading:
    """Read the table at `path`. Raises InvalidData or TooLarge."""
    bad = BadRows(options.bad_rows)
    with path.open("rb") as file:
        lines = _Lines(file)
        delimiter, names = _header(lines, limits)
        roles = assign_roles(names, options)
        features = [TextColumn(names[i], limits.max_categories) for i in roles.features]
        table = Table(names, roles, features, limits, bad, keep_unlabelled=options.unlabelled == "keep")
        rows = _Rows(lines, delimiter, len(names), limits, bad)
        for block, numbers in rows.blocks():
            cells = list(zip(*block, strict=True))
            table.add({i: pa.array(cells[i], pa.string()) for i in roles.used}, numbers)
        return table.finish(rows.count, scratch)


class _Lines:
    """Lines of text, each with its line end; knows in which row it is so that its errors can say so."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.bytes = 0
        self.row = 0
        """0 in the header, then the number of the row being read."""

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        start = self.bytes
        line = self._file.readline(_MAX_LINE_BYTES + 1)
        if not line:
            raise StopIteration
        self.bytes += len(line)
        if start == 0:
            if line.startswith(_UTF16):
                raise invalid("/file", "not_utf8", "The file is UTF-16 or UTF-32.", _ENCODING_HINT)
            line = line.removeprefix(b"\xef\xbb\xbf")
        if len(line) > _MAX_LINE_BYTES:
            detail = f"A line of {self.place} is longer than the limit of {_MAX_LINE_BYTES:,} bytes."
            raise too_large(self.at, "line_too_long", detail, "Check the line ends and the quotes.")
        if b"\0" in line:
            detail = f"There is a NUL byte in {self.place}: this is not UTF-8 text."
            raise invalid(self.at, "nul_byte", detail, _NO_TEXT_HINT)
        try:
            return line.decode("utf-8")
        except UnicodeDecodeError as error:
            byte = start + error.start
            detail = f"Byte {byte:,} of the file, in {self.place}, is not UTF-8."
            raise invalid(self.at, "not_utf8", detail, _ENCODING_HINT) from None

    @property
    def place(self) -> str:
        """Where the reader is, for a sentence."""
        return f"row {self.row}" if self.row else "the header"

    @property
    def at(self) -> str:
        """Where the reader is, as a pointer."""
        return pointer("rows", self.row) if self.row else "/file"


def _header(lines: _Lines, limits: Limits) -> tuple[str, list[str]]:
    """The delimiter and the column names."""
    text = next((line for line in lines if line.strip()), None)
    if text is None:
        raise invalid("/file", "empty_file", "The file holds no text.")
    if "\r" in text.rstrip("\r\n"):
        raise _bare_carriage_return("/file", "The header")
    csv.field_size_limit(_MAX_LINE_BYTES)
    splits = {delimiter: _split_header(text, delimiter) for delimiter in _DELIMITERS}
    delimiter = max(_DELIMITERS, key=lambda d: len(splits[d]))
    if len(splits[delimiter]) < 2 and not all(splits.values()):
        raise invalid("/file", "bad_quotes", "The header has a quote that is not closed on its line.", _QUOTES_HINT)
    names = [name.strip() for name in splits[delimiter]]
    if len(names) > limits.max_columns:
        detail = f"The header names {len(names):,} columns, the limit is {limits.max_columns:,}."
        raise too_large("/file", "too_many_columns", detail)
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

    def __init__(self, lines: _Lines, delimiter: str, width: int, limits: Limits, bad: BadRows) -> None:
        self._lines, self._width, self._limits, self._bad = lines, width, limits, bad
        self._reader = csv.reader(lines, delimiter=delimiter, strict=True)
        self.count = 0

    def blocks(self) -> Iterator[tuple[list[list[str]], np.ndarray[tuple[int], np.dtype[np.int64]]]]:
        """Yield rows of equal width and their 1-based numbers. Ragged rows go on the list of bad rows."""
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
                yield rows, numbers

    def _next_rows(self) -> list[list[str]]:
        """The next rows, blank lines left out, until a block is full. Raises at the first one that cannot be parsed."""
        rows: list[list[str]] = []
        most = min(_BLOCK_ROWS, max(1, _BLOCK_CELLS // self._width))
        until = self._lines.bytes + _BLOCK_BYTES
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
        if self.count > self._limits.max_rows:
            detail = f"The file has more than the limit of {self._limits.max_rows:,} rows."
            raise too_large("/file", "too_many_rows", detail)
        return rows

    def _add_ragged(self, number: int, cells: int) -> None:
        reason = f"The row has {cells} cells, the header {self._width}."
        self._bad.add(number, str(number), pointer("rows", number), "ragged_row", reason)


def _malformed(error: csv.Error, at: str, subject: str) -> Exception:
    message = str(error)
    if "new-line" in message:
        return _bare_carriage_return(at, subject)
    if "field larger" in message:
        return invalid(
            at, "bad_quotes", f"{subject} has a cell that does not end: a quote is not closed.", _QUOTES_HINT
        )
    if "unexpected end" in message:
        return invalid(
            at, "bad_quotes", f"{subject} opens a quote that is not closed before the file ends.", _QUOTES_HINT
        )
    return invalid(at, "bad_quotes", f"{subject} has text behind a closing quote.", _QUOTES_HINT)


def _bare_carriage_return(at: str, subject: str) -> Exception:
    return invalid(at, "bad_line_ends", f"{subject} has a bare carriage return.", "End lines with LF or CRLF.")
