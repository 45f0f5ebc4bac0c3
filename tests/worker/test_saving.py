"""A backup taken while a worker trains comes back on the other kind of database, where the job goes on to its end."""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import create_engine, make_url

from core.db import Database
from core.settings import Settings
from core.storage import make_storage, sha256_of
from models import results, trash
from models.job import JobRow
from operate import backup, fsck
from operate.archive import Reader
from operate.restore import HANDED_BACK, restore
from tests.worker.service import Service, eventually, spec


@pytest.fixture
def other_kind(settings: Settings, postgres_server: str, tmp_path: Path) -> Iterator[Settings]:
    """An empty service like the test's own, on the other kind of database."""
    changes = {"data_dir": tmp_path / "other", "queue": f"q{uuid4().hex[:12]}"}
    if settings.resolved_database_url.startswith("postgres"):
        yield _like(settings, database_url=f"sqlite:///{tmp_path / 'other.db'}", **changes)
        return
    name = f"other_{uuid4().hex}"
    engine = create_engine(postgres_server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    url = make_url(postgres_server).set(database=name).render_as_string(hide_password=False)
    yield _like(settings, database_url=url, **changes)
    with engine.connect() as connection:
        connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
    engine.dispose()


def _like(settings: Settings, **changes: object) -> Settings:
    given = {name: getattr(settings, name) for name in settings.model_fields_set}
    return Settings.model_validate(given | changes)


def test_a_job_saved_while_it_trains_ends_here_and_there(
    service: Service, other_kind: Settings, tmp_path: Path
) -> None:
    done = service.submit(spec())
    service.start_worker()
    service.wait(done, "succeeded")
    running, waiting = service.submit(spec(epochs=500)), service.submit(spec())
    service.wait_training(running)
    storage = make_storage(service.settings)
    taken = backup.take(service.database, storage, service.settings, tmp_path / "saved.tar")
    assert taken.wrong == ()
    assert service.job(running).status == "running"

    reader = Reader(tmp_path / "saved.tar")
    restore(reader, other_kind)
    reader.close()
    there = Service(other_kind, Database(other_kind.resolved_database_url), service.project, tmp_path, service.digits)
    try:
        assert {id: there.job(id).status for id in (done, running, waiting)} == {
            done: "succeeded",
            running: "queued",
            waiting: "queued",
        }
        assert HANDED_BACK in there.messages(running)
        assert there.job(done).report == service.job(done).report
        there.start_worker()
        there.start_reconciler()  # the doorbells of the other service are not heard here
        for place in (there, service):
            for id in (running, waiting):
                place.wait(id, "succeeded")
            _every_file_is_right(place, done, running, waiting)
    finally:
        there.stop()
        there.database.close()


def _every_file_is_right(place: Service, *ids: str) -> None:
    storage = make_storage(place.settings)
    found = fsck.check(place.database, storage, place.settings.work_dir, deep=True)
    assert [problem for problem in found.problems if problem.kind != "orphan"] == []
    with place.database.read() as session:
        files = [file for id in ids for file in results.artifacts(session, id)]
    assert len(files) >= 9
    for file in files:
        assert sha256_of(storage.fetch(file.storage_key, place.folder)) == file.sha256


def test_the_reconciler_purges_what_lay_in_the_trash_long_enough(service: Service) -> None:
    gone, stays = service.submit(spec()), service.submit(spec())
    service.start_worker()
    for id in (gone, stays):
        service.wait(id, "succeeded")
    with service.database.write() as session:
        row = trash.locked(session, JobRow, service.project, gone)
        assert row is not None
        trash.put(session, row, days=0)
    service.start_reconciler()
    eventually(lambda: not _is_there(service, gone), "the job is purged")
    assert service.job(stays).status == "succeeded"
    found = fsck.check(service.database, make_storage(service.settings), service.settings.work_dir, deep=True)
    assert found.problems == ()


def _is_there(service: Service, job_id: str) -> bool:
    with service.database.read() as session:
        return session.get(JobRow, job_id) is not None
