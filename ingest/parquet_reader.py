"""Parquet tables, and, through `parquet_images`, images. What the footer claims is checked before a page is read; what
a page holds is validated after.

https://parquet.apache.org/docs/file-format/
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ingest.columns import CategoryColumn, NumberColumn
from ingest.errors import BadRows
from ingest.parquet_file import as_text, check_footer, corrupt, is_number, is_plain_text, is_text, open_file
from ingest.parquet_images import image_column, read_images
from ingest.reading import Reading
from ingest.rows import Scratch
from ingest.table import ColumnReader, Roles, Table, assign_roles
from stillhouse.spec.errors import FieldError
from stillhouse.spec.limits import Limits
from stillhouse.spec.refusing import all_invalid, invalid, pointer, quoted
from stillhouse.spec.upload import IngestOptions

_BLOCK_CELLS = 1_000_000
_BLOCK_ROWS = 65_536
_PANDAS_INDEX = "__index_level_"


def read(path: Path, options: IngestOptions, limits: Limits, scratch: Scratch) -> Reading:
    """Read the table or the images at `path`. Raises InvalidData or TooLarge."""
    try:
        with open_file(path) as file:
            check_footer(file.metadata, limits)
            footer, schema = file.metadata, file.schema_arrow
        if (column := image_column(path, footer, schema, options)) is not None:
            return read_images(path, footer, schema, column, options, limits, scratch)
        if options.image_size is not None:
            detail = "image_size does nothing for a table; no column holds images."
            raise invalid("?image_size", "option_does_not_apply", detail)
        options, notes = _without_index(schema.names, options)
        roles = assign_roles(schema.names, options)
        _check_types(schema, roles)
        # Text stays a dictionary: a page that repeats one long text a million times unfolds to very little.
        texts = [field.name for field in schema if is_plain_text(field.type)]
        with open_file(path, metadata=footer, read_dictionary=texts) as file:
            reading = _read(file, schema, roles, options, limits, scratch)
        reading.notes.extend(notes)
        return reading
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        # A failing disk has an error number; what arrow says of a broken file has none.
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno is not None):
            raise
        raise corrupt(str(error)) from None


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
        textual = {i for i, c in cells.items() if i in (roles.label, roles.split) or is_text(c.type)}
        numbers = np.arange(count + 1, count + 1 + batch.num_rows)
        table.add({i: as_text(c) if i in textual else c for i, c in cells.items()}, numbers)
        count += batch.num_rows
    if count != file.metadata.num_rows:
        raise corrupt(f"the footer says {file.metadata.num_rows:,} rows, there are {count:,}")
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
        if not (is_number(kind) or is_text(kind)):
            detail = f"Column {quoted(name)} is of type {kind}, which is not read."
            errors.append(FieldError(pointer=pointer("columns", name), code="unsupported_type", detail=detail))
    if errors:
        hint = "Turn them into numbers, text or truth values, or leave them out with ignore."
        raise all_invalid(f"Read are columns of numbers, text and truth values; {len(errors)} differ.", errors, hint)


def _reader(field: Any, limits: Limits) -> ColumnReader:
    if is_number(field.type):
        return NumberColumn(field.name)
    return CategoryColumn(field.name, limits.max_categories)
