"""The database: an engine, and two kinds of short transaction. SQLite and PostgreSQL behave alike behind them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.orm import Session, sessionmaker

# A writer waits this long for another before it gives up: longer than any transaction of ours may take.
_BUSY_SECONDS = 10
# A server whose machine or network has gone says nothing, and the kernel would go on sending for a quarter of an hour:
# heartbeats, the reconciler and requests would stand still as long, also when another server had taken over by then.
_NOTICE_SILENCE = {
    "tcp_user_timeout": 10_000,  # ms
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
}


class Database:
    """Short transactions on one engine. Make it after a fork, never before: connections are not shared."""

    def __init__(self, url: str, *, info: Mapping[str, Any] | None = None) -> None:
        """`info`: what every session of it carries in `session.info`."""
        self.engine, self._info = _engine(url), dict(info or {})
        # SQLite deadlocks when a reader turns writer, so a writing transaction takes the lock at once.
        self._writer = sessionmaker(self.engine.execution_options(sqlite_begin="IMMEDIATE"), expire_on_commit=False)
        self._reader = sessionmaker(self.engine, expire_on_commit=False)

    @contextmanager
    def write(self, info: Mapping[str, Any] | None = None) -> Iterator[Session]:
        """A transaction that commits at the end of the block, or rolls back when it raises."""
        with self._writer(info=self._info | dict(info or {})) as session, session.begin():
            yield session

    @contextmanager
    def read(self, info: Mapping[str, Any] | None = None) -> Iterator[Session]:
        """A transaction for reading; nothing is committed."""
        with self._reader(info=self._info | dict(info or {})) as session:
            yield session

    def close(self) -> None:
        """Close pooled connections."""
        self.engine.dispose()


def is_outage(error: Exception) -> bool:
    """True when the database was away or busy, so that the same call may work a little later."""
    return isinstance(error, OperationalError) or (isinstance(error, DBAPIError) and error.connection_invalidated)


def _engine(url: str) -> Engine:
    if make_url(url).get_backend_name() == "sqlite":
        engine = create_engine(url, connect_args={"timeout": _BUSY_SECONDS, "check_same_thread": False})
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    # A statement or a forgotten transaction that blocks others must end by itself.
    options = "-c statement_timeout=15s -c lock_timeout=5s -c idle_in_transaction_session_timeout=30s"
    args = {"options": options, "connect_timeout": 5, **_NOTICE_SILENCE}
    return create_engine(url, pool_pre_ping=True, pool_recycle=1800, connect_args=args)


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # the driver must not open transactions behind our back
    cursor = connection.cursor()
    for pragma in (
        "journal_mode=WAL",
        "foreign_keys=ON",
        "synchronous=NORMAL",
        f"busy_timeout={_BUSY_SECONDS * 1000}",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Any) -> None:
    kind = connection.get_execution_options().get("sqlite_begin", "DEFERRED")
    connection.exec_driver_sql(f"BEGIN {kind}")
