"""What a job leaves behind holds no secret: every row, file, log, answer, message and command line is searched.

A whole service of `stillhouse up`, which has no password of a database: SQLite needs none.
"""

import base64
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import psutil
import pytest
from sqlalchemy import make_url, select

from core.db import Database
from models.tables import metadata
from stillhouse.client import Client
from tests.house import SPEC
from tests.receiver import Receiver, receiver
from tests.worker.service import eventually, family, gone

MAY_SHOW = ("client.json", "ready.json", "secret.key")
"""Files whose purpose is to hold a secret, for their owner's eyes alone."""


@pytest.fixture
def secrets() -> dict[str, str]:
    return {"secret key": "service-" + uuid4().hex * 2}


@pytest.fixture
def hook() -> Iterator[Receiver]:
    with receiver() as made:
        yield made


@pytest.fixture
def up(tmp_path: Path, sqlite_url: str, secrets: dict[str, str]) -> Iterator["subprocess.Popen[bytes]"]:
    env = os.environ | {
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "STILLHOUSE_TRAINER_THREADS": "1",
        "STILLHOUSE_DATABASE_URL": sqlite_url,
        "STILLHOUSE_SECRET_KEY": secrets["secret key"],
        "STILLHOUSE_OUTBOUND_ALLOW": "127.0.0.0/8",
        "STILLHOUSE_OUTBOUND_HTTP": "true",
        "STILLHOUSE_LOG_LEVEL": "debug",
    }
    command = [sys.executable, "-m", "stillhouse", "up", "--data-dir", str(tmp_path / "data"), "--port", "0"]
    with (tmp_path / "up.out").open("wb") as out:
        process = subprocess.Popen(
            [*command, "--json-ready", str(tmp_path / "ready.json")],
            stdout=out, stderr=out, start_new_session=True, env=env,
        )  # fmt: skip
    yield process
    for pid in [process.pid, *family(process.pid)]:
        if not gone(pid):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def test_nothing_a_job_leaves_behind_holds_a_secret(
    up: "subprocess.Popen[bytes]", tmp_path: Path, sqlite_url: str, secrets: dict[str, str], hook: Receiver
) -> None:
    ready = tmp_path / "ready.json"
    eventually(lambda: ready.exists() or up.poll() is not None, "the service answers")
    assert ready.exists(), (tmp_path / "up.out").read_text()
    place = json.loads(ready.read_text())
    secrets |= {"api key": place["key"], "broker password": broker_password(up)}
    with Client(place["url"], place["key"]) as client:
        secrets["made key"] = client.keys.create("second").key
        secrets["webhook secret"] = client.webhooks.secret().secret.removeprefix("whsec_")
        job_ids = jobs_of_both_ends(client, hook)
        eventually(lambda: len(hook.received) >= 2, "the messages arrive")
        answers = [*read_everything(place, job_ids), *(got.body + repr(got.headers).encode() for got in hook.received)]
        rows = read_rows(sqlite_url)
        lines = [" ".join(psutil.Process(pid).cmdline()).encode() for pid in [up.pid, *family(up.pid)] if not gone(pid)]
    os.kill(up.pid, signal.SIGINT)
    up.wait(30)
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path.name not in MAY_SHOW]
    # `up` tells its key to the terminal: that is how its user learns it.
    said = (tmp_path / "up.out").read_bytes().replace(place["key"].encode(), b"")
    left = {str(path): path.read_bytes() for path in files if path.name != "up.out"}
    left |= {"terminal": said, "rows": rows, "answers": b"\n".join(answers), "command lines": b"\n".join(lines)}
    assert len(files) > 10
    found = [(name, what) for name, content in left.items() for what, forms in forms_of(secrets) if forms(content)]
    assert found == []
    assert b"job.succeeded" in left["answers"], "the search looks where the job was"
    for name in MAY_SHOW:
        assert all(path.stat().st_mode & 0o077 == 0 for path in tmp_path.rglob(name)), name


def test_the_search_finds_what_it_looks_for() -> None:
    secret = "whsec" + base64.b64encode(b"0123456789abcdef").decode()
    for content in (secret.encode(), b"\0" + b"x" + secret.encode().hex().encode(), base64.b64encode(secret.encode())):
        assert [what for what, forms in forms_of({"it": secret}) if forms(content)] == ["it"]
    assert [what for what, forms in forms_of({"it": secret}) if forms(b"nothing of it")] == []


def forms_of(secrets: dict[str, str]) -> Iterator[tuple[str, Any]]:
    """(name, does it stand in these bytes): plain, as hex or base64, and what a base64 secret stands for."""
    for what, secret in secrets.items():
        plain = secret.encode()
        forms = [plain, plain.hex().encode(), base64.b64encode(plain).rstrip(b"=")]
        if what == "webhook secret":
            forms += [base64.b64decode(secret), base64.b64decode(secret).hex().encode()]
        yield what, lambda content, forms=forms: any(form in content for form in forms)


def broker_password(up: "subprocess.Popen[bytes]") -> str:
    """From the environment of the API, which needs it."""
    [api] = [p for p in psutil.Process(up.pid).children() if "api" in p.cmdline()]
    password = make_url(api.environ()["STILLHOUSE_BROKER_URL"]).password
    assert isinstance(password, str)
    return password


def jobs_of_both_ends(client: Client, hook: Receiver) -> list[str]:
    """One job that succeeds and one that fails: its teacher has learnt less than its student will."""
    webhook = {"webhook": {"url": hook.url}}
    good = client.jobs.create(SPEC | webhook | {"evaluation": {"baseline": False}})
    weak = client.jobs.create(SPEC | webhook)
    ended = client.jobs.wait(good.id, timeout=300)
    assert ended.status == "succeeded", ended.error
    assert client.jobs.wait(weak.id, timeout=300).status == "failed"
    return [good.id, weak.id]


def read_everything(place: dict[str, str], job_ids: list[str]) -> Iterator[bytes]:
    """Every answer of the service about the jobs, but for the route whose purpose is the secret."""
    paths = ["/openapi.json", "/readyz", "/version"]
    paths += [f"/v1/{name}" for name in ("jobs", "datasets", "models", "keys", "audit", "teacher-outputs", "usage")]
    for job_id in job_ids:
        parts = ("", "/events", "/log", "/metrics", "/artifacts", "/webhook-deliveries", "/checkpoints", "/bundle.zip")
        paths += [f"/v1/jobs/{job_id}{part}" for part in parts]
    with httpx2.Client(base_url=place["url"], headers={"Authorization": f"Bearer {place['key']}"}) as http:
        names = [found["url"] for found in http.get(f"/v1/jobs/{job_ids[0]}/artifacts").json()["data"]]
        for path in [*paths, *names]:
            answer = http.get(path)
            assert answer.status_code in (200, 404, 409), path
            yield answer.content + repr(answer.headers).encode()


def read_rows(url: str) -> bytes:
    database, found = Database(url), []
    with database.read() as session:
        for table in metadata.sorted_tables:
            found += [repr(tuple(row)) for row in session.execute(select(table))]
    database.close()
    assert len(found) > 20
    return "\n".join(found).encode()
