"""A Parquet file before its rows are read: what its footer claims, and which types its columns may have.

https://parquet.apache.org/docs/file-format/
"""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stillhouse.spec.limits import Limits
from stillhouse.spec.refusing import invalid, too_large

_BUFFER_BYTES = 1024**2
_MAX_THRIFT_BYTES = 64 * 1024**2
_CORRUPT_HINT = "Is the upload complete? Write the file anew."


def open_file(path: Path, **options: Any) -> Any:
    """The Parquet file at `path`; nothing but its footer is read yet."""
    return pq.ParquetFile(
        path, pre_buffer=False, buffer_size=_BUFFER_BYTES, thrift_string_size_limit=_MAX_THRIFT_BYTES, **options
    )


def check_footer(footer: Any, limits: Limits) -> None:
    """Raise TooLarge for claims of a footer beyond the limits."""
    if not 0 <= footer.num_rows <= limits.max_rows:
        detail = f"The file claims {footer.num_rows:,} rows, the limit is {limits.max_rows:,}."
        raise too_large("/file", "too_many_rows", detail)
    if footer.num_columns > limits.max_columns:
        detail = f"The file has {footer.num_columns:,} columns, the limit is {limits.max_columns:,}."
        raise too_large("/file", "too_many_columns", detail)
    groups = [footer.row_group(i) for i in range(footer.num_row_groups)]
    claimed = sum(max(0, group.total_byte_size) for group in groups)
    if claimed > limits.max_expanded_bytes:
        detail = f"The file claims {claimed:,} bytes of unpacked data, the limit is {limits.max_expanded_bytes:,}."
        raise too_large("/file", "too_many_bytes", detail)


def is_number(kind: Any) -> bool:
    """True for integers and floats."""
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def is_text(kind: Any) -> bool:
    """True for strings, truth values and dictionaries of strings."""
    is_dictionary = pa.types.is_dictionary(kind)
    return bool(is_plain_text(kind) or pa.types.is_boolean(kind) or (is_dictionary and is_plain_text(kind.value_type)))


def is_plain_text(kind: Any) -> bool:
    """True for strings that are no dictionary."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def as_text(cells: Any) -> Any:
    """Cells as strings: `true`, `3`; a dictionary of strings stays one."""
    if pa.types.is_dictionary(cells.type) or pa.types.is_string(cells.type):
        return cells
    if pa.types.is_float16(cells.type):
        cells = cells.cast(pa.float64())
    return cells.cast(pa.string())


def corrupt(reason: str) -> Exception:
    """The refusal of a broken or encrypted file, from what arrow says of it."""
    if "encrypt" in reason.lower() or "decrypt" in reason.lower():
        return invalid("/file", "corrupt_parquet", "The Parquet file is encrypted.", "Write it without encryption.")
    return invalid("/file", "corrupt_parquet", "The Parquet file is broken or not complete.", _CORRUPT_HINT)
