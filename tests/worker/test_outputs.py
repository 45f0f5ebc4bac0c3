"""The desk where a trainer asks for teacher outputs, when the database is away at the wrong moment."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from core.db import Database
from core.settings import Settings
from core.storage import make_storage
from stillhouse.spec.events import OutputsMade
from tests.models.test_teacher_outputs import Jobs
from worker.outputs import Desk
from worker.staging import Staged


class Unheard(Database):
    """It does what it is asked, and goes away before it has said so."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.away = threading.Event()

    @contextmanager
    def write(self, info: Mapping[str, Any] | None = None) -> Iterator[Session]:
        with super().write(info) as session:
            yield session
        self.away.set()
        raise OperationalError("COMMIT", {}, Exception("the connection is closed"))


def test_outputs_put_on_record_unheard_keep_their_file_though_the_lease_is_lost(
    database: Database, database_url: str, settings: Settings, project: str
) -> None:
    jobs = Jobs(database, project)
    lease = jobs.start()
    assert jobs.turn(lease).what == "make"
    made = settings.work_dir / "cache" / "teacher-outputs" / project / "k.safetensors"
    made.parent.mkdir(parents=True)
    made.write_bytes(b"outputs")
    staged = Staged(order=cast(Any, None), project_id=project, dataset_id="", name="", spent_seconds=0)
    storage, unheard = make_storage(settings), Unheard(database_url)
    desk = Desk(unheard, storage, settings, lease, staged, lost=unheard.away.is_set)
    desk.take(OutputsMade(key="k", kept=True))
    (storing,) = desk._storing
    storing.join()
    unheard.close()
    (row,) = jobs.rows().values()
    assert row.status == "ready"
    assert row.storage_key is not None
    assert b"".join(storage.read(row.storage_key)) == b"outputs"
