"""Parquet tables. What the footer claims is checked before a page is read; what a page holds is validated after.

https://parquet.apache.org/docs/file-format/
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ingest.columns import CategoryColumn, NumberColumn
from ingest.errors import BadRows, all_invalid, invalid, pointer, quoted, too_large
from ingest.reading import Reading
from ingest.rows import Scratch
from ingest.table import ColumnReader, Roles, Table, assign_roles
from stillhouse.spec.errors import FieldError
from stillhouse.spec.limits import Limits
from stillhouse.spec.upload import IngestOptions

_BLOCK_CELLS = 1_000_000
_BLOCK_ROWS = 65_536
_BUFFER_BYTES = 1024**2
_MAX_THRIFT_BYTES = 64 * 1024**2
_PANDAS_INDEX = "__index_level_"
_CORRUPT_HINT = "Is the upload complete? Write the file anew."


def read(path: Path, options: IngestOptions, limits: Limits, scratch: Scratch) -> Reading:
    """Read the table at `path`. Raises InvalidData or TooLarge."""
    try:
        with _open(path) as file:
            _check_footer(file.metadata, limits)
            footer, schema = file.metadata, file.schema_arrow
        options, notes = _without_index(schema.names, options)
        roles = assign_roles(schema.names, options)
        _check_types(schema, roles)
        # Text stays a dictionary: a page that repeats one long text a million times unfolds to very little.
        texts = [field.name for field in schema if _is_plain_text(field.type)]
        with _open(path, metadata=footer, read_dictionary=texts) as file:
            reading = _read(file, schema, roles, options, limits, scratch)
        reading.notes.extend(notes)
        return reading
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        # A failing disk has an error number; what arrow says of a broken file has none.
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno is not None):
            raise
        raise _corrupt(str(error)) from None


def _open(path: Path, **options: Any) -> Any:
    return pq.ParquetFile(
        path, pre_buffer=False, buffer_size=_BUFFER_BYTES, thrift_string_size_limit=_MAX_THRIFT_BYTES, **options
    )


def _check_footer(footer: Any, limits: Limits) -> None:
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


def _read(file: Any, schema: Any, roles: Roles, options: IngestOptions, limits: Limits, scratch: Scratch) -> Reading:
    features = [_reader(schema.field(i), limits) for i in roles.features]
    bad, keep = BadRows(options.bad_rows), options.unlabelled == "keep"
    table = Table(schema.names, roles, features, limits, bad, keep_unlabelled=keep)
    used = [schema.field(i).name for i in roles.used]
    size = max(1, min(_BLOCK_ROWS, _BLOCK_CELLS // len(used)))
    count = 0
    for batch in file.iter_batches(size, columns=used, use_threads=False):
        batch.validate(full=True)  # offsets and indices come from the file, and nothing else checks them
        cells = {i: batch.column(batch.schema.get_field_index(schema.field(i).name)) for i in roles.used}
        as_text = {i for i, c in cells.items() if i in (roles.label, roles.split) or _is_text(c.type)}
        numbers = np.arange(count + 1, count + 1 + batch.num_rows)
        table.add({i: _text(c) if i in as_text else c for i, c in cells.items()}, numbers)
        count += batch.num_rows
    if count != file.metadata.num_rows:
        raise _corrupt(f"the footer says {file.metadata.num_rows:,} rows, there are {count:,}")
    return table.finish(count, scratch)


def _without_index(names: Sequence[str], options: IngestOptions) -> tuple[IngestOptions, list[str]]:
    """Leave out the index pandas writes: it numbers the rows, and with sorted data that gives the label away."""
    index = [name for name in names if name.startswith(_PANDAS_INDEX) and name not in (options.label, *options.ignore)]
    notes = [f"Column {quoted(name)} is an index that pandas wrote; it was left out." for name in index]
    return options.model_copy(update={"ignore": (*options.ignore, *index)}), notes


def _check_types(schema: Any, roles: Roles) -> None:
    errors = []
    for i in roles.used:
        name, kind = schema.field(i).name, schema.field(i).type
        if not (_is_number(kind) or _is_text(kind)):
            detail = f"Column {quoted(name)} is of type {kind}, which is not read."
            errors.append(FieldError(pointer=pointer("columns", name), code="unsupported_type", detail=detail))
    if errors:
        hint = "Turn them into numbers, text or truth values, or leave them out with ignore."
        raise all_invalid(f"Read are columns of numbers, text and truth values; {len(errors)} differ.", errors, hint)


def _reader(field: Any, limits: Limits) -> ColumnReader:
    if _is_number(field.type):
        return NumberColumn(field.name)
    return CategoryColumn(field.name, limits.max_categories)


def _is_number(kind: Any) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _is_text(kind: Any) -> bool:
    is_dictionary = pa.types.is_dictionary(kind)
    return bool(
        _is_plain_text(kind) or pa.types.is_boolean(kind) or (is_dictionary and _is_plain_text(kind.value_type))
    )


def _is_plain_text(kind: Any) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _text(cells: Any) -> Any:
    """Cells as strings: `true`, `3`; a dictionary of strings stays one."""
    if pa.types.is_dictionary(cells.type) or pa.types.is_string(cells.type):
        return cells
    if pa.types.is_float16(cells.type):
        cells = cells.cast(pa.float64())
    return cells.cast(pa.string())


def _corrupt(reason: str) -> Exception:
    if "encrypt" in reason.lower() or "decrypt" in reason.lower():
        return invalid("/file", "corrupt_parquet", "The Parquet file is encrypted.", "Write it without encryption.")
    return invalid("/file", "corrupt_parquet", "The Parquet file is broken or not complete.", _CORRUPT_HINT)
