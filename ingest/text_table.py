"""A table whose cells come as text. CSV and JSON lines differ only in how lines become blocks of cells: what a cell, a
column, a label and a missing value are is the same for both.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ingest.columns import TextColumn
from ingest.errors import BadRows
from ingest.reading import Reading
from ingest.rows import Scratch
from ingest.table import Roles, Table
from stillhouse.spec.limits import Limits
from stillhouse.spec.refusing import too_large
from stillhouse.spec.upload import IngestOptions

BLOCK_BYTES = 32 * 1024**2
_BLOCK_ROWS = 16_384
_BLOCK_CELLS = 2_000_000


@dataclass(frozen=True)
class Block:
    """Some rows of a table, n of them."""

    cells: Mapping[int, Sequence[str]]
    """Of each column that is used, by its position: n texts; an empty one is a missing value."""
    numbers: NDArray[np.int64]
    """[n]: the 1-based number of each row in the file."""


class TextRows(Protocol):
    """The rows of a file."""

    count: int
    """Rows so far, also those that cannot be used."""

    def blocks(self, used: Sequence[int]) -> Iterator[Block]:
        """Blocks with the columns at these positions. Rows that have no cells to give go on the list of bad rows."""


def read_rows(
    rows: TextRows,
    names: Sequence[str],
    roles: Roles,
    options: IngestOptions,
    limits: Limits,
    bad: BadRows,
    scratch: Scratch,
) -> Reading:
    """Read all rows of a table of these columns. Raises InvalidData or TooLarge."""
    features = [TextColumn(names[i], limits.max_categories) for i in roles.features]
    table = Table(names, roles, features, limits, bad, keep_unlabelled=options.unlabelled == "keep")
    for block in rows.blocks(roles.used):
        table.add({i: pa.array(cells, pa.string()) for i, cells in block.cells.items()}, block.numbers)
    return table.finish(rows.count, scratch)


def rows_of_a_block(columns: int) -> int:
    """How many rows with as many columns a block holds at most."""
    return min(_BLOCK_ROWS, max(1, _BLOCK_CELLS // max(1, columns)))


def check_columns(count: int, limits: Limits) -> None:
    """Raise TooLarge for more columns than the limit."""
    if count > limits.max_columns:
        detail = f"The file names {count:,} columns, the limit is {limits.max_columns:,}."
        raise too_large("/file", "too_many_columns", detail)


def check_rows(count: int, limits: Limits) -> None:
    """Raise TooLarge for more rows than the limit."""
    if count > limits.max_rows:
        raise too_large("/file", "too_many_rows", f"The file has more than the limit of {limits.max_rows:,} rows.")
