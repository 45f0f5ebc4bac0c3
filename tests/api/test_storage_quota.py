"""Uploads that come at once cannot pass the project's limit together, on either kind of database."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from api.main import create_app
from core.db import Database
from core.settings import Settings
from core.storage import LocalStorage, make_storage
from models import usage
from models.dataset import DatasetRow
from stillhouse.spec.limits import Limits

CSV = b"a,label\n" + b"".join(b"%d,%s\n" % (n, b"xy"[n % 2 : n % 2 + 1]) for n in range(200))
AT_ONCE = 4


def test_only_as_many_are_kept_as_have_room(
    settings: Settings, database: Database, project: str, api_key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = {"Authorization": f"Bearer {api_key}"}

    def upload(client: TestClient, number: int) -> int:
        path = f"/v1/datasets?name=number-{number}&label=label"
        return int(client.post(path, content=CSV, headers=key).status_code)

    with TestClient(create_app(settings)) as client:
        assert upload(client, 0) == 201
    with database.read() as session:
        bytes = usage.stored_bytes(session, project)
    # Room for two and a half: each upload alone finds enough.
    limits = Limits(max_storage_bytes=int(bytes * 3.5))
    put, meeting = LocalStorage.put, threading.Barrier(AT_ONCE)

    def put_together(self: LocalStorage, stored: str, source: Path) -> None:
        put(self, stored, source)
        meeting.wait(60)  # all have looked, and none is on record

    monkeypatch.setattr(LocalStorage, "put", put_together)
    made = [create_app(settings.model_copy(update={"limits": limits})) for _ in range(2)]
    with TestClient(made[0]) as one, TestClient(made[1]) as other, ThreadPoolExecutor(AT_ONCE) as pool:
        found = list(pool.map(upload, [one, other] * (AT_ONCE // 2), range(1, AT_ONCE + 1)))
    assert sorted(found) == [201, 201, 429, 429]
    with database.read() as session:
        assert usage.stored_bytes(session, project) == 3 * bytes
        rows = set(session.scalars(select(DatasetRow.storage_key)))
    assert {entry.key for entry in make_storage(settings).entries()} == rows, "nothing is left of those refused"
