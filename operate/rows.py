"""Rows as lines of JSON: what one kind of database wrote, the other can read."""

import base64
import json
from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

from sqlalchemy import JSON, Column, Connection, Engine, LargeBinary, Table, column, insert, select, table
from sqlalchemy.dialects.postgresql import JSONB

from models.base import UtcDateTime
from models.tables import metadata

_BATCH = 500
# Processes that ran, and holds of backups: nothing of the past.
LEFT_OUT = ("worker", "storage_hold")
# What is absent must be absent again, and not the word null in JSON.
_JSON = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")


def tables() -> list[Table]:
    """The tables of a backup, each after those it refers to."""
    return [made for made in metadata.sorted_tables if made.name not in LEFT_OUT]


def dump(engine: Engine, folder: Path) -> None:
    """Write `TABLE.jsonl` for each table, all as they are at one moment."""
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":  # SQLite reads from one moment anyway
            connection.execution_options(isolation_level="REPEATABLE READ")
        with connection.begin():
            unhurried(connection)
            for made in tables():
                _dump(connection, made, folder / f"{made.name}.jsonl")


def load(connection: Connection, name: str, lines: Iterable[str]) -> int:
    """Insert lines of a table; returns how many there were."""
    total, rest = 0, iter(lines)
    while batch := [json.loads(line) for line in islice(rest, _BATCH)]:
        known = metadata.tables[name].columns
        target = table(name, *(column(key, _type(known[key])) for key in batch[0]))
        rows = [{key: _read(known[key], value) for key, value in row.items()} for row in batch]
        connection.execute(insert(target), rows)
        total += len(batch)
    return total


def unhurried(connection: Connection) -> None:
    """This transaction may take its time; those of the service may not."""
    if connection.dialect.name == "postgresql":
        for limit in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
            connection.exec_driver_sql(f"SET LOCAL {limit} = 0")


def line_of(row: dict[str, Any]) -> str:
    """A row as a line."""
    return json.dumps(row, default=_plain, ensure_ascii=False) + "\n"


def lines_of(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a dumped file, as JSON has them."""
    with path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)


def _dump(connection: Connection, made: Table, path: Path) -> None:
    query = select(made).order_by(*made.primary_key).execution_options(yield_per=_BATCH)
    with path.open("w", encoding="utf-8") as file:
        file.writelines(line_of(dict(row)) for row in connection.execute(query).mappings())


def _plain(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, bytes | memoryview):
        return base64.b64encode(value).decode()
    raise TypeError(f"a row holds a {type(value).__name__}")


def _read(known: Column[Any], value: Any) -> Any:
    if value is None:
        return None
    if isinstance(known.type, UtcDateTime):
        return datetime.fromisoformat(value)
    return base64.b64decode(value) if isinstance(known.type, LargeBinary) else value


def _type(known: Column[Any]) -> Any:
    return _JSON if isinstance(known.type, JSON) else known.type
