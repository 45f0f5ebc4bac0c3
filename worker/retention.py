"""Retention: what is old by policy goes into the trash, and what lay there long enough is removed for good.

Any number of sweeps may run at once, and each may die anywhere: `models.purge` says why nothing gets lost.
"""

import threading
from dataclasses import dataclass

import structlog

from core.db import Database
from core.settings import Settings
from core.storage import Storage
from models import purge, trash
from models.dataset import DatasetRow
from models.job import JobRow
from models.model import ModelRow
from models.trash import AnyThing, Thing
from stillhouse.spec.errors import Unavailable
from worker import checkpoints

log = structlog.get_logger()

_AT_ONCE = 200


@dataclass(frozen=True)
class Swept:
    """What one sweep did."""

    expired: int
    purged: int


def sweep(database: Database, storage: Storage, settings: Settings) -> Swept:
    """Expire, tidy checkpoints, then purge. Raises Unavailable when the storage is away; the next sweep goes on."""
    expired = _expire(database, settings)
    checkpoints.tidy(database, storage)
    # Jobs first: what a dataset or a model was for may go with them.
    purged = _purge(database, storage, JobRow) + _purge(database, storage, ModelRow)
    return Swept(expired=expired, purged=purged + _purge(database, storage, DatasetRow))


def run(database: Database, storage: Storage, settings: Settings, stop: threading.Event) -> None:
    """Sweep now and then until `stop` is set."""
    while not stop.is_set():
        try:
            done = sweep(database, storage, settings)
            if done.expired or done.purged:
                log.info("swept", expired=done.expired, purged=done.purged)
        except Exception as error:  # noqa: BLE001 - the next sweep goes on where this one ended
            log.warning("sweep failed", error=type(error).__name__)
        stop.wait(settings.sweep_seconds)


def _expire(database: Database, settings: Settings) -> int:
    rules = (
        (settings.retention_job_days, trash.expire_jobs),
        (settings.retention_dataset_days, trash.expire_datasets),
        (settings.retention_model_days, trash.expire_models),
    )
    done = 0
    for after_days, expire in rules:
        if after_days is not None:
            with database.write() as session:
                done += expire(session, after_days=after_days, trash_days=settings.trash_days)
    return done


def _purge(database: Database, storage: Storage, table: type[AnyThing]) -> int:
    with database.read() as session:
        due = purge.due(session, table, limit=_AT_ONCE)
    for project_id, id in due:
        with database.write() as session:
            keys = purge.begin(session, table, project_id, id)
        for key in keys or ():
            _remove(storage, key)
    with database.read() as session:
        begun = purge.begun(session, table, limit=_AT_ONCE)
    for id in begun:
        _finish(database, storage, table, id)
    return len(begun)


def _finish(database: Database, storage: Storage, table: type[Thing], id: str) -> None:
    with database.read() as session:
        keys = purge.files_of(session, table, id)
    for key in sorted(keys):
        storage.delete(key)
    while table is JobRow and _thinned(database, id):
        pass
    with database.write() as session:
        purge.finish(session, table, id)
    log.info("purged", what=table.__tablename__, id=id, files=len(keys))


def _thinned(database: Database, job_id: str) -> bool:
    with database.write() as session:
        return purge.thin(session, job_id)


def _remove(storage: Storage, key: str) -> None:
    """A file no row names any more. One that stays takes room until `fsck` finds it."""
    try:
        storage.delete(key)
    except Unavailable as error:
        log.warning("file not removed", storage_key=key, error=type(error).__name__)
