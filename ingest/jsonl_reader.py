"""JSON lines: UTF-8 text, one JSON object on each line; its keys are the columns.

https://jsonlines.org, and RFC 8259 for the objects. A cell means what its text means in CSV: `5` and `"5"` are one
cell; null, NaN and a key that is left out are empty ones. The file is read twice, once for the names of its columns:
any line may be the first to have a key. No number is made here, so one of a million digits costs no more than text.
"""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ingest.errors import BadRows
from ingest.labels import check_name
from ingest.lines import Lines, bare_carriage_return
from ingest.reading import Reading
from ingest.rows import Scratch
from ingest.table import assign_roles
from ingest.text_table import BLOCK_BYTES, Block, check_columns, check_rows, read_rows, rows_of_a_block
from stillhouse.spec.limits import Limits
from stillhouse.spec.refusing import invalid, pointer, quoted, too_large
from stillhouse.spec.upload import IngestOptions

_BLANKS = " \t\r\n"
_CELL_BYTES = 4
_HINT = "Write one JSON object on each line, and no line break inside it."
_TEXTS = {None: "", False: "false", True: "true"}
_ALL_TEXT = {str}
_HALF_A_CHARACTER = re.compile("[\ud800-\udfff]")


def read(path: Path, options: IngestOptions, limits: Limits, scratch: Scratch) -> Reading:
    """Read the table at `path`. Raises InvalidData or TooLarge."""
    bad = BadRows(options.bad_rows)
    with path.open("rb") as file:
        names, count = _names(Lines(file, row=1), limits)
        roles = assign_roles(names, options)
        # A row costs as little as `{}`, so a small file may claim any number of cells.
        claimed = count * len(roles.features) * _CELL_BYTES
        if claimed > limits.max_expanded_bytes:
            detail = f"The table would unfold to {claimed:,} bytes, the limit is {limits.max_expanded_bytes:,}."
            raise too_large("/file", "too_many_bytes", detail)
        file.seek(0)
        return read_rows(_Rows(Lines(file, row=1), names, bad), names, roles, options, limits, bad, scratch)


def _names(lines: Lines, limits: Limits) -> tuple[list[str], int]:
    """The columns in the order in which they turn up, and the number of rows."""
    names: dict[str, None] = {}
    first: _Fault | None = None
    for line in _objects(lines):
        check_rows(lines.row, limits)
        try:
            new = [name for name, _ in _pairs(line, lines) if name not in names]
        except _Fault as fault:  # the second reading lists it
            first = first or fault
            continue
        for name in new:
            if name:  # one without a name is refused with all others that have a wrong one
                check_name(name, pointer("columns", name), "column name")
            names[name] = None
        check_columns(len(names), limits)
    if lines.row == 1:
        raise invalid("/file", "empty_file", "The file holds no text.")
    if not names and first is not None:
        raise invalid(pointer("rows", 1), first.code, first.reason, _HINT)
    if not names:
        raise invalid("/file", "no_rows", "No line of the file has a key.")
    return list(names), lines.row - 1


def _objects(lines: Lines) -> Iterator[str]:
    """Lines that are not blank; `lines.row` is the number of the one that was given last, and 1 more at the end."""
    for line in lines:
        if line.strip(_BLANKS):
            yield line
            lines.row += 1


class _Rows:
    """The objects of a file as rows of as many texts as there are columns."""

    def __init__(self, lines: Lines, names: Sequence[str], bad: BadRows) -> None:
        self._lines, self._names, self._bad = lines, names, bad
        self.count = 0

    def blocks(self, used: Sequence[int]) -> Iterator[Block]:
        """Blocks of the rows that could be read. Lines that are no row go on the list of bad rows."""
        names = [self._names[i] for i in used]
        most = rows_of_a_block(len(names))
        rows: list[list[str]] = []
        numbers: list[int] = []
        until = BLOCK_BYTES
        for line in _objects(self._lines):
            self.count = number = self._lines.row
            try:
                rows.append(_texts(line, self._lines, names))
                numbers.append(number)
            except _Fault as fault:
                self._bad.add(number, str(number), pointer("rows", number), fault.code, fault.reason)
            if rows and (len(rows) >= most or self._lines.bytes > until):
                yield _block(used, rows, numbers)
                rows, numbers, until = [], [], self._lines.bytes + BLOCK_BYTES
        if rows:
            yield _block(used, rows, numbers)


def _block(used: Sequence[int], rows: list[list[str]], numbers: list[int]) -> Block:
    columns = zip(*rows, strict=True)
    return Block(dict(zip(used, columns, strict=True)), np.array(numbers, np.int64))


class _Fault(Exception):
    """Why a line is no row."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


class _Pairs(list[tuple[str, Any]]):
    """An object as it stands in the text: with double keys, and no list."""


class _Infinity:
    """One of the words that Python writes for infinities and JSON does not have."""


_DECODER = json.JSONDecoder(
    object_pairs_hook=_Pairs,
    parse_int=str,
    parse_float=str,
    parse_constant=lambda word: None if word == "NaN" else _Infinity(),
)


def _texts(line: str, lines: Lines, names: Sequence[str]) -> list[str]:
    """The cells of these columns. Raises _Fault."""
    pairs = _pairs(line, lines)
    cells = dict(pairs)
    if len(cells) != len(pairs):
        raise _Fault("duplicate_key", f"Line {lines.count:,} has the key {quoted(_double(pairs))} more than once.")
    row: list[Any] = [cells.get(name) for name in names]
    if set(map(type, row)) != _ALL_TEXT:  # asked of all at once, as most rows hold text and numbers alone
        row = [_text(cell, name) for cell, name in zip(row, names, strict=True)]
    if "\\u" in line:  # only an escape can name half of a character
        for cell, name in zip(row, names, strict=True):
            if _HALF_A_CHARACTER.search(cell):
                detail = f"Column {quoted(name)} is {quoted(cell)}, with one half of a surrogate pair: this is no text."
                raise _Fault("not_utf8", detail)
    return row


def _double(pairs: _Pairs) -> str:
    seen: set[str] = set()
    return next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]


def _text(cell: Any, name: str) -> str:
    if isinstance(cell, str):
        return cell
    if cell is None or isinstance(cell, bool):
        return _TEXTS[cell]
    if isinstance(cell, _Infinity):
        raise _Fault("not_finite", f"Column {quoted(name)} is infinite, which JSON has no word for.")
    kind = "an object" if isinstance(cell, _Pairs) else "a list"
    raise _Fault("nested_value", f"Column {quoted(name)} is {kind}: flatten it, or leave it out with ignore.")


def _pairs(line: str, lines: Lines) -> _Pairs:
    """The object on the line just read. Raises _Fault for anything else, InvalidData for old line ends."""
    text = line.rstrip(_BLANKS)
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        if "\r" in text:
            raise bare_carriage_return(lines.at, f"Row {lines.row}") from None
        what = error.msg[:1].lower() + error.msg[1:].removesuffix(" at")
        detail = f"Line {lines.count:,} is not JSON: {what} at column {error.pos + 1:,}."
        raise _Fault("bad_json", detail) from None
    except RecursionError:
        raise _Fault("nested_value", f"Line {lines.count:,} nests deeper than any table.") from None
    if not isinstance(value, _Pairs):
        raise _Fault("not_an_object", f"Line {lines.count:,} is not an object with named values.")
    return value
