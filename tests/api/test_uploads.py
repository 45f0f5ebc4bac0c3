"""Uploads that are kept, and those that must leave nothing behind."""

import hashlib
import json
import pickle
import socket
import time
import zipfile
from base64 import b64encode
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import event, select
from sqlalchemy.exc import OperationalError

from api.main import create_app
from api.services import uploads, workspace
from core.db import Database
from core.settings import Settings
from core.storage import make_storage, sha256_of
from models.dataset import DatasetRow
from stillhouse.spec.errors import Problem
from stillhouse.spec.limits import Limits
from stillhouse.spec.views import Dataset
from tests.api.conftest import Traces
from tests.house import SPEC, House
from tests.ingest.making import archive, csv, good_objects, good_rows, jsonl, npz, parquet, pets

GOOD = csv("a,b,label", good_rows(60))
LIMIT = 200_000


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    return sqlite_url


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"limits": Limits(max_upload_bytes=LIMIT, max_expanded_bytes=200 * LIMIT)})


def digest(data: bytes) -> str:
    return f"sha-256=:{b64encode(hashlib.sha256(data).digest()).decode()}:"


KINDS: dict[str, bytes] = {
    "csv": GOOD,
    "jsonl": jsonl(good_objects(60)),
    "parquet": parquet({"a": list(range(60)), "label": ["x", "y"] * 30}),
    "npz": npz(x=np.random.default_rng(0).random((60, 3)), y=np.arange(60) % 2),
    "zip": archive(pets(10)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_an_upload_is_kept_reported_and_listed(
    http: TestClient, database: Database, settings: Settings, kind: str
) -> None:
    answer = http.post("/v1/datasets", params={"name": f"my {kind}"}, content=KINDS[kind])
    assert answer.status_code == 201, answer.text
    made = Dataset.model_validate_json(answer.content)
    assert answer.headers["location"] == f"/v1/datasets/{made.id}"
    assert (made.name, made.source, made.format) == (f"my {kind}", "upload", kind)
    assert sum(made.facts.rows.values()) == made.report.rows_kept > 0
    assert http.get(f"/v1/datasets/{made.id}").json() == answer.json()
    assert http.get("/v1/datasets").json()["data"] == [answer.json()]
    with database.read() as session:
        row = session.scalars(select(DatasetRow)).one()
    stored = make_storage(settings).fetch(row.storage_key, settings.work_dir)
    assert (sha256_of(stored), stored.stat().st_size) == (made.sha256, made.bytes)
    assert list((settings.work_dir / "uploads").iterdir()) == []


def test_an_upload_can_be_used_by_a_job(http: TestClient) -> None:
    made = http.post("/v1/datasets?name=t", content=GOOD).json()
    spec = SPEC | {"dataset": {"id": made["id"]}}
    job = http.post("/v1/jobs", json=spec)
    assert job.status_code == 202, job.text
    assert job.json()["resolved"]["task"] == "tabular-classification"
    misfit = http.post("/v1/jobs", json=spec | {"student": {"name": "cnn"}})
    assert [e["pointer"] for e in misfit.json()["errors"]] == ["/student"]
    flips = http.post("/v1/jobs", json=spec | {"training": {"augmentation": {"horizontal_flip": True}}})
    assert [e["pointer"] for e in flips.json()["errors"]] == ["/training/augmentation"]


def test_a_teacher_of_other_data_is_refused(http: TestClient, digits: str, database: Database, project: str) -> None:
    house = House(url="", key="", project=project, settings=http.app.state.parts.settings, database=database)  # type: ignore[attr-defined]
    lease = house.take_up(http.post("/v1/jobs", json=SPEC).json()["id"])
    house.succeed(lease, {"model.safetensors": b"w"})
    teacher = http.get("/v1/models").json()["data"][0]["id"]
    made = http.post("/v1/datasets?name=t", content=GOOD).json()
    answer = http.post("/v1/jobs", json=SPEC | {"dataset": {"id": made["id"]}, "teacher": {"model": teacher}})
    assert [(e["pointer"], e["code"]) for e in answer.json()["errors"]] == [("/teacher/model", "shape_mismatch")]


def test_options_reach_the_reader(http: TestClient) -> None:
    data = csv("a,b,what,part", [f"{i},{i % 7},{'x' if i % 2 else 'y'},train" for i in range(60)])
    query = "name=t&label=what&ignore=part&ignore=b&validation=0&test=0.5&seed=3&format=csv"
    made = http.post(f"/v1/datasets?{query}", content=data).json()
    assert [feature["name"] for feature in made["facts"]["features"]] == ["a"]
    assert made["facts"]["rows"]["validation"] == 0
    assert made["facts"]["rows"]["test"] == 30


def test_bad_rows_are_dropped_on_request_and_listed(http: TestClient) -> None:
    data = csv("a,b,label", [*good_rows(30), "1,red"])
    made = http.post("/v1/datasets?name=t&bad_rows=drop", content=data).json()
    assert made["report"]["rows_dropped"] == 1
    assert made["report"]["dropped"][0]["row"] == "31"


@pytest.mark.parametrize("header", ["Repr-Digest", "Content-Digest"])
def test_a_right_digest_is_accepted_whatever_stands_beside_it(http: TestClient, header: str) -> None:
    value = f"md5=:AAAA:, {digest(GOOD)}, sha-512=:AAAA:"
    assert http.post("/v1/datasets?name=t", content=GOOD, headers={header: value}).status_code == 201


def link(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = 0o120777 << 16
    return info


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("/tmp/stillhouse-was-unpickled"),)  # type: ignore[return-value]


def pickled() -> bytes:
    return npz(x=np.array([Evil()] * 10, dtype=object), y=np.arange(10) % 2)


# Bytes → status, code, and the code of an entry in `errors`.
FILES: dict[str, tuple[bytes, int, str, str]] = {
    "empty": (b"", 422, "invalid_data", "empty_file"),
    "header only": (b"a,b,label\n", 422, "invalid_data", "no_rows"),
    "one class": (csv("a,label", [f"{i},x" for i in range(20)]), 422, "invalid_data", "one_class"),
    "ragged": (csv("a,b,label", [*good_rows(20), "1,red,yes,more"]), 422, "invalid_data", "ragged_row"),
    "not UTF-8": ("a,label\n1,caf\xe9\n".encode("latin-1"), 422, "invalid_data", "not_utf8"),
    "NaN cell": (csv("a,b,label", [*good_rows(20), "nan,red,yes"]), 422, "invalid_data", "not_finite"),
    "label missing": (csv("a,b,label", [*good_rows(20), "1,red,"]), 422, "invalid_data", "empty_label"),
    "no label column": (csv("a,b,c", good_rows(20)), 422, "invalid_data", "no_label"),
    "corrupt PNG": (archive([*pets(5), ("cat/x.png", pets(1)[0][1][:60])]), 422, "invalid_data", "corrupt_image"),
    "..": (archive([*pets(5), ("cat/../../x.png", b"x")]), 422, "invalid_data", "unsafe_name"),
    "absolute": (archive([*pets(5), ("/etc/x.png", b"x")]), 422, "invalid_data", "unsafe_name"),
    "link": (archive([*pets(5), (link("cat/x.png"), b"/etc/passwd")]), 422, "invalid_data", "special_member"),
    "bomb": (archive([*pets(5), ("cat/b.png", bytes(20_000_000))]), 413, "too_large", "compression_ratio"),
    "bomb beyond the limit": (
        archive([*pets(5), *((f"cat/b{i}.png", bytes(1_000_000)) for i in range(100))]),
        413,
        "too_large",
        "too_many_bytes",
    ),
    "objects": (pickled(), 422, "invalid_data", "object_array"),
    "half a ZIP": (archive(pets(10))[:-100], 422, "invalid_data", "corrupt_archive"),
    "half a Parquet": (KINDS["parquet"][:-100], 422, "invalid_data", "corrupt_parquet"),
    "a JSON array": (b'[{"a": 1, "label": 2}]', 415, "unsupported_media", "unsupported_format"),
    "JSON lines of which one is broken": (jsonl(good_objects(60)) + b"{", 422, "invalid_data", "bad_json"),
    "a picture": (pets(1)[0][1], 415, "unsupported_media", "unsupported_format"),
    "a pickle": (pickle.dumps({"x": [1, 2, 3]}), 415, "unsupported_media", "unsupported_format"),
    "NUL": (b"a,label\n1,\0x\n2,y\n", 422, "invalid_data", "nul_byte"),
}


@pytest.mark.parametrize("case", FILES)
def test_a_file_that_cannot_be_used_is_refused_and_leaves_nothing(http: TestClient, traces: Traces, case: str) -> None:
    data, status, code, entry = FILES[case]
    before = traces()
    answer = http.post("/v1/datasets?name=t", content=data)
    problem = Problem.model_validate_json(answer.content)
    assert (answer.status_code, problem.code) == (status, code), answer.text
    assert entry in {e.code for e in problem.errors}, answer.text
    assert traces() == before
    assert not Path("/tmp/stillhouse-was-unpickled").exists()


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("", "?name"),
        ("name=", "?name"),
        ("name=../../x", "?name"),
        ("name=a%00", "?name"),
        ("name=a%0d%0aSet-Cookie:x", "?name"),
        ("name=t&test=nan", "?test"),
        ("name=t&test=0", "?test"),
        ("name=t&validation=0.6&test=0.5", "?test"),
        ("name=t&seed=-1", "?seed"),
        ("name=t&format=exe", "?format"),
        ("name=t&bad_rows=keep", "?bad_rows"),
        ("name=t&lable=x", "?lable"),
        ("name=t&label=a&ignore=a", "?ignore"),
    ],
)
def test_wrong_options_are_named_before_the_file_is_read(
    http: TestClient, traces: Traces, query: str, pointer: str
) -> None:
    before = traces()
    answer = http.post(f"/v1/datasets?{query}", content=GOOD)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid")
    assert [e["pointer"] for e in answer.json()["errors"]] == [pointer]
    assert traces() == before


def test_a_form_is_refused_with_the_command_that_works(http: TestClient, traces: Traces) -> None:
    before = traces()
    answer = http.post("/v1/datasets?name=t", files={"file": ("t.csv", GOOD)})
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media")
    assert "curl --data-binary @" in answer.json()["hint"]
    assert traces() == before


def test_a_compressed_body_is_refused(http: TestClient, traces: Traces) -> None:
    before = traces()
    answer = http.post("/v1/datasets?name=t", content=GOOD, headers={"Content-Encoding": "gzip"})
    assert answer.status_code == 415
    assert traces() == before


@pytest.mark.parametrize(
    ("header", "status", "code"),
    [
        (digest(b"other"), 422, "invalid_data"),
        ("sha-256=:abc:", 422, "invalid"),
        ("sha-256=abc", 422, "invalid"),
        (f'sha-256="{digest(GOOD)[9:-1]}"', 422, "invalid"),
    ],
)
def test_a_wrong_digest_is_refused(http: TestClient, traces: Traces, header: str, status: int, code: str) -> None:
    before = traces()
    answer = http.post("/v1/datasets?name=t", content=GOOD, headers={"Repr-Digest": header})
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert traces() == before


def test_more_bytes_than_the_limit_are_refused_by_their_declared_length(http: TestClient, traces: Traces) -> None:
    before = traces()
    answer = http.post("/v1/datasets?name=t", content=bytes(LIMIT + 1))
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
    assert f"{LIMIT:,}" in answer.json()["detail"]
    assert traces() == before


def test_no_byte_of_an_upload_is_read_without_a_key(anyone: TestClient, traces: Traces) -> None:
    def never() -> bytes:
        raise AssertionError("the body was read")

    before = traces()
    answer = anyone.post("/v1/datasets?name=t", content=(never() for _ in range(1)))
    assert answer.status_code == 401
    assert traces() == before


def connect(live: str) -> socket.socket:
    url = urlsplit(live)
    return socket.create_connection((url.hostname, url.port), timeout=30)


def head(key: str, *lines: str) -> bytes:
    start = ("POST /v1/datasets?name=t HTTP/1.1", "Host: x", f"Authorization: Bearer {key}")
    return "\r\n".join([*start, *lines, "", ""]).encode()


def eventually(check: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not check():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


@pytest.mark.parametrize("lines", [[f"Content-Length: {len(GOOD)}"], ["Transfer-Encoding: chunked"]])
def test_an_upload_that_breaks_off_leaves_nothing(
    live: str, api_key: str, settings: Settings, traces: Traces, lines: list[str]
) -> None:
    before = traces()
    half = GOOD[: len(GOOD) // 2]
    chunk = half if "Length" in lines[0] else f"{len(half):x}\r\n".encode() + half + b"\r\n"
    with connect(live) as connection:
        connection.sendall(head(api_key, *lines) + chunk)
        eventually(lambda: any((settings.work_dir / "uploads").iterdir()))
    eventually(lambda: not any((settings.work_dir / "uploads").iterdir()))
    assert traces() == before


def test_more_bytes_than_the_limit_are_refused_while_they_come(live: str, api_key: str, traces: Traces) -> None:
    before = traces()
    with connect(live) as connection:
        connection.sendall(head(api_key, "Transfer-Encoding: chunked"))
        for _ in range(30):
            connection.sendall(f"{10_000:x}\r\n".encode() + bytes(10_000) + b"\r\n")
        # The end of the body is never sent: the answer comes without it.
        assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")
    assert traces() == before


def test_an_upload_that_falls_silent_is_given_up(
    live: str, api_key: str, traces: Traces, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "IDLE_SECONDS", 0.2)
    before = traces()
    with connect(live) as connection:
        connection.sendall(head(api_key, "Content-Length: 1000") + b"a,b")
        answer = connection.recv(65536)
        assert answer.startswith(b"HTTP/1.1 422 ")
        assert b"cut_off" in answer
    assert traces() == before


def test_a_huge_declared_length_is_refused_before_a_byte_is_sent(live: str, api_key: str, traces: Traces) -> None:
    before = traces()
    with connect(live) as connection:
        connection.sendall(head(api_key, f"Content-Length: {10**13}", "Expect: 100-continue"))
        assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")
    assert traces() == before


def test_what_a_killed_process_left_is_swept_and_what_is_in_use_stays(settings: Settings, app: FastAPI) -> None:
    with workspace.working_folder(settings) as in_use:
        left = in_use.parent / "left"
        left.mkdir()
        (left / "upload").write_bytes(b"half a file")
        with TestClient(create_app(settings)):
            assert not left.exists()
            assert in_use.exists()
    assert not in_use.exists()


def test_a_database_that_fails_at_the_last_step_leaves_no_file(
    http: TestClient, settings: Settings, traces: Traces
) -> None:
    engine = http.app.state.parts.database.engine  # type: ignore[attr-defined]

    def fail(_conn: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("INSERT INTO dataset"):
            raise OperationalError(statement, None, Exception("disk gone"))

    before = traces()
    event.listen(engine, "before_cursor_execute", fail)
    answer = http.post("/v1/datasets?name=t", content=GOOD)
    event.remove(engine, "before_cursor_execute", fail)
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert answer.headers["retry-after"]
    assert traces() == before


def test_a_storage_that_cannot_be_written_leaves_nothing(http: TestClient, settings: Settings, traces: Traces) -> None:
    before = traces()
    (settings.data_dir / "storage").write_bytes(b"a file where the folder should be")
    answer = http.post("/v1/datasets?name=t", content=GOOD)
    (settings.data_dir / "storage").unlink()
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert traces() == before


def test_uploads_at_once_do_not_meet(http: TestClient) -> None:
    def upload(i: int) -> str:
        data = csv("a,label", [f"{i}{j},{j % 2}" for j in range(40)])
        return str(http.post(f"/v1/datasets?name=t{i}", content=data).json()["sha256"])

    with ThreadPoolExecutor(5) as pool:
        digests = list(pool.map(upload, range(5)))
    assert len(set(digests)) == 5
    assert len(http.get("/v1/datasets").json()["data"]) == 5


def test_datasets_come_in_pages(http: TestClient, digits: str) -> None:
    made = http.post("/v1/datasets?name=t", content=GOOD).json()["id"]
    first = http.get("/v1/datasets?limit=1").json()
    rest = http.get("/v1/datasets", params={"limit": 1, "after": first["next_cursor"]}).json()
    assert [page["data"][0]["id"] for page in (first, rest)] == [made, digits]
    assert (first["has_more"], rest["has_more"]) == (True, False)
    assert json.loads(json.dumps(rest))["next_cursor"] is None
