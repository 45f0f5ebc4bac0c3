"""When keys were last shown: noted by a thread of its own, once a minute each, so that no request waits for it."""

import time
from queue import SimpleQueue
from threading import Thread

import structlog
from sqlalchemy.exc import SQLAlchemyError

from core.db import Database
from models import keys
from models.tenancy import every_project

log = structlog.get_logger()

_EVERY_SECONDS = keys.USE_NOTED_EVERY.total_seconds()


class KeyUse:
    """Notes the use of keys."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._noted: dict[str, float] = {}
        self._wanted: SimpleQueue[str | None] = SimpleQueue()
        self._thread = Thread(target=self._write, name="key-use", daemon=True)
        self._thread.start()

    def note(self, key_id: str) -> None:
        """A key was shown. Costs a look into a dict; what is lost with the process is at most a minute."""
        now = time.monotonic()
        if now - self._noted.get(key_id, -_EVERY_SECONDS) < _EVERY_SECONDS:
            return
        self._noted[key_id] = now
        self._wanted.put(key_id)

    def close(self) -> None:
        """Write what waits, and end."""
        self._wanted.put(None)
        self._thread.join(5)

    def _write(self) -> None:
        while (key_id := self._wanted.get()) is not None:
            try:
                with every_project(self._database, write=True) as session:
                    keys.note_use(session, key_id)
            except SQLAlchemyError as error:
                self._noted.pop(key_id, None)
                log.warning("the use of a key was not noted", key_id=key_id, error=type(error).__name__)
