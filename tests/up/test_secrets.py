"""What a job leaves behind holds no secret: every row, file, log, answer, message, command line and environment of a
child is searched.

A whole service of `stillhouse up`, on each database. On PostgreSQL its role has a password, and the database goes away
for a while, because most is written to logs then.
"""

import base64
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import httpx2
import psutil
import pytest
import timm
from safetensors.torch import save
from sqlalchemy import Connection, create_engine, inspect, make_url

from core.db import Database
from stillhouse.client import Client
from stillhouse.spec.errors import InvalidSpec
from tests.house import SPEC
from tests.hub import FakeHub, fake_hub
from tests.receiver import Receiver, receiver
from tests.worker.service import PATIENCE_SECONDS, eventually, family, gone

MAY_SHOW = ("client.json", "ready.json", "secret.key")
"""Files whose purpose is to hold a secret, for their owner's eyes alone."""
MUST_KNOW = ("stillhouse", "api", "api.keys", "models.migrate", "worker", "worker.reconciler")
"""Modules whose processes open the database and the broker; the pool of Celery is a fork of `worker`."""


@pytest.fixture
def secrets() -> dict[str, str]:
    return {"secret key": "service-" + uuid4().hex * 2}


@pytest.fixture
def hook() -> Iterator[Receiver]:
    with receiver() as made:
        yield made


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with fake_hub(save(timm.create_model("test_resnet", num_classes=1000).state_dict())) as made:
        yield made


@pytest.fixture
def url(database_url: str, secrets: dict[str, str]) -> Iterator[str]:
    """The database for the service: on PostgreSQL with a role and a password of its own."""
    made = make_url(database_url)
    if made.get_backend_name() == "sqlite":
        yield database_url
        return
    role, password = f"role_{uuid4().hex}", f"p@ss/{uuid4().hex}"
    secrets |= {"database password": password, "quoted password": quote(password, safe="")}
    with as_owner(database_url) as connection:
        connection.exec_driver_sql(f"CREATE ROLE {role} LOGIN PASSWORD '{password}' IN ROLE pg_write_all_data")
        connection.exec_driver_sql(f"GRANT pg_read_all_data TO {role}")
        connection.exec_driver_sql(f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {role}")
    yield made.set(username=role, password=password).render_as_string(hide_password=False)
    with as_owner(database_url) as connection:
        connection.exec_driver_sql(f"DROP OWNED BY {role}")
        connection.exec_driver_sql(f"DROP ROLE {role}")


@pytest.fixture
def up(tmp_path: Path, url: str, secrets: dict[str, str], hub: FakeHub) -> Iterator["subprocess.Popen[bytes]"]:
    env = os.environ | {
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "STILLHOUSE_TRAINER_THREADS": "1",
        "STILLHOUSE_DATABASE_URL": url,
        "STILLHOUSE_SECRET_KEY": secrets["secret key"],
        "STILLHOUSE_OUTBOUND_ALLOW": "127.0.0.0/8",
        "STILLHOUSE_OUTBOUND_HTTP": "true",
        "STILLHOUSE_HUB_URL": hub.url,
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
    up: "subprocess.Popen[bytes]",
    tmp_path: Path,
    database_url: str,
    secrets: dict[str, str],
    hook: Receiver,
    hub: FakeHub,
) -> None:
    ready = tmp_path / "ready.json"
    with watched(up.pid) as processes:
        eventually(lambda: ready.exists() or up.poll() is not None, "the service answers")
        assert ready.exists(), (tmp_path / "up.out").read_text()
        place = json.loads(ready.read_text())
        secrets |= {"api key": place["key"], "broker password": broker_password(up)}
        with Client(place["url"], place["key"]) as client:
            secrets["made key"] = client.keys.create("second").key
            secrets["webhook secret"] = client.webhooks.secret().secret.removeprefix("whsec_")
            secrets["hub token"] = f"hf_{uuid4().hex}"
            client.secrets.set("hub", secrets["hub token"])
            job_ids = [*jobs_of_both_ends(client, hook), *jobs_that_show_a_token(client, hub, secrets["hub token"])]
            eventually(lambda: len(hook.received) >= 2, "the messages arrive")
        away = while_the_database_is_away(database_url, place)
        answers = [*read_everything(place, job_ids), *(got.body + repr(got.headers).encode() for got in hook.received)]
        rows = read_rows(database_url)
    os.kill(up.pid, signal.SIGINT)
    up.wait(PATIENCE_SECONDS)
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path.name not in MAY_SHOW]
    # `up` tells its key to the terminal: that is how its user learns it.
    said = (tmp_path / "up.out").read_bytes().replace(place["key"].encode(), b"")
    left = {str(path): path.read_bytes() for path in files if path.name != "up.out"}
    left |= {"terminal": said, "rows": rows, "answers": b"\n".join(answers), "answers of an outage": away}
    left |= {f"command line of {command}": command.encode() for command in processes}
    kept = {command: env for command, env in processes.items() if module_of(command) not in MUST_KNOW}
    left |= {f"environment of {command}": env for command, env in kept.items()}
    assert len(files) > 10
    found = [(name, what) for name, content in left.items() for what, forms in forms_of(secrets) if forms(content)]
    assert found == []
    assert b"job.succeeded" in left["answers"], "the search looks where the job was"
    assert {module_of(command) for command in kept} >= {"worker.forkserver", "ingest"}, "the children were seen"
    assert any("valkey" in command for command in kept), "the broker was seen"
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


@contextmanager
def watched(pid: int) -> Iterator[dict[str, bytes]]:
    """{command line: environment} of each process that descends from `pid` while the block runs."""
    seen: dict[str, bytes] = {}
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.01):
            for member in [pid, *family(pid)]:
                with suppress(psutil.Error):
                    process = psutil.Process(member)
                    before, env = process.cmdline(), process.environ()
                    if before and before == process.cmdline():  # else it became another program meanwhile
                        seen[" ".join(before)] = repr(env).encode()

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


def module_of(command: str) -> str:
    """`api` of `python -m api …`; empty for other programs."""
    _, _, rest = command.partition(" -m ")
    return rest.partition(" ")[0]


def asking(place: dict[str, str]) -> httpx2.Client:
    """A client of the service that waits as long as a busy machine takes."""
    headers = {"Authorization": f"Bearer {place['key']}"}
    return httpx2.Client(base_url=place["url"], headers=headers, timeout=PATIENCE_SECONDS)


def while_the_database_is_away(url: str, place: dict[str, str]) -> bytes:
    """What the API answers then. SQLite does not go away."""
    if make_url(url).get_backend_name() == "sqlite":
        return b""
    name = make_url(url).database
    with asking(place) as http:

        def ready() -> int:
            return http.get("/readyz").status_code

        with as_owner(url, "postgres") as connection:
            connection.exec_driver_sql(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
            connection.exec_driver_sql(
                f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
            )
            eventually(lambda: ready() == 503, "the outage is seen")
            answers = [http.get("/v1/jobs"), http.get("/readyz"), http.post("/v1/jobs", json=SPEC)]
            connection.exec_driver_sql(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        assert {answer.status_code for answer in answers} == {503}
        eventually(lambda: ready() == 200, "the database is back")
    return b"\n".join(answer.content + repr(answer.headers).encode() for answer in answers)


@contextmanager
def as_owner(url: str, database: str | None = None) -> Iterator[Connection]:
    """A connection of the superuser, to the test's database or to another."""
    made = make_url(url)
    engine = create_engine(made.set(database=database or made.database), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        yield connection
    engine.dispose()


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
    ended = client.jobs.wait(good.id, timeout=PATIENCE_SECONDS)
    assert ended.status == "succeeded", ended.error
    assert client.jobs.wait(weak.id, timeout=PATIENCE_SECONDS).status == "failed"
    return [good.id, weak.id]


def jobs_that_show_a_token(client: Client, hub: FakeHub, token: str) -> list[str]:
    """One whose token the hub takes, one whose token it refuses, and one that puts the token itself into its spec."""
    student = {"name": "timm/test_resnet", "pretrained": True, "input_size": 32, "hub_token": {"secret": "hub"}}
    spec = SPEC | {"student": student, "training": {"epochs": 1}, "evaluation": {"baseline": False}}
    good = client.jobs.wait(client.jobs.create(spec).id, timeout=PATIENCE_SECONDS)
    assert good.status == "succeeded", good.error
    assert {shown for _, shown in hub.asked} == {f"Bearer {token}"}, "the token was used"
    assert {shown for _, shown in hub.fetched} == {None}, "and did not follow to where the hub sent"
    hub.status = 403
    bad = client.jobs.wait(client.jobs.create(spec).id, timeout=PATIENCE_SECONDS)
    assert bad.error is not None
    assert bad.error.code == "weights_unavailable"
    with pytest.raises(InvalidSpec):
        client.jobs.create(spec | {"student": student | {"hub_token": token}})
    return [good.id, bad.id]


def read_everything(place: dict[str, str], job_ids: list[str]) -> Iterator[bytes]:
    """Every answer of the service about the jobs, but for the route whose purpose is the secret."""
    paths = ["/openapi.json", "/readyz", "/version"]
    paths += [
        f"/v1/{name}" for name in ("jobs", "datasets", "models", "keys", "secrets", "audit", "teacher-outputs", "usage")
    ]
    for job_id in job_ids:
        parts = ("", "/events", "/log", "/metrics", "/artifacts", "/webhook-deliveries", "/checkpoints", "/bundle.zip")
        paths += [f"/v1/jobs/{job_id}{part}" for part in parts]
    with asking(place) as http:
        names = [found["url"] for found in http.get(f"/v1/jobs/{job_ids[0]}/artifacts").json()["data"]]
        for path in [*paths, *names]:
            answer = http.get(path)
            assert answer.status_code in (200, 404, 409), path
            yield answer.content + repr(answer.headers).encode()


def read_rows(url: str) -> bytes:
    """Every row of every table there is, as text."""
    database, found = Database(url), []
    with database.engine.connect() as connection:
        for table in inspect(connection).get_table_names():
            for row in connection.exec_driver_sql(f'SELECT * FROM "{table}"'):
                found += [value if isinstance(value, bytes) else repr(value).encode() for value in row]
    database.close()
    assert len(found) > 200
    return b"\n".join(found)
