"""Files of finished jobs: whole, in ranges, conditionally, and all of them as one ZIP."""

import hashlib
import io
import zipfile
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from core.db import Database
from core.settings import Settings
from models.artifact import ArtifactRow
from stillhouse.spec.views import Artifact, JobError, Page
from tests.house import House

WEIGHTS = bytes(range(256)) * 40  # 10,240 bytes
CARD = b"# A student\n"
CONFIG = b'{"format": "stillhouse-model/1"}'


def sums(files: dict[str, bytes]) -> bytes:
    return "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in files.items()).encode()


FILES = {"model.safetensors": WEIGHTS, "README.md": CARD, "config.json": CONFIG, "empty.json": b""}
FILES["SHA256SUMS"] = sums(FILES)
ETAG = f'"{hashlib.sha256(WEIGHTS).hexdigest()}"'


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    return sqlite_url


@pytest.fixture
def job_id(post_job: Callable[..., str], house: House) -> str:
    lease = house.take_up(post_job())
    house.succeed(lease, FILES)
    return lease.job_id


@pytest.fixture
def path(job_id: str) -> str:
    return f"/v1/jobs/{job_id}/artifacts/model.safetensors"


def test_the_list_names_every_file_with_size_and_digest(http: TestClient, job_id: str) -> None:
    page = Page[Artifact].model_validate_json(http.get(f"/v1/jobs/{job_id}/artifacts").content)
    assert {a.name: (a.bytes, a.sha256) for a in page.data} == {
        name: (len(data), hashlib.sha256(data).hexdigest()) for name, data in FILES.items()
    }
    for artifact in page.data:
        assert http.get(artifact.url).content == FILES[artifact.name]
        assert http.get(artifact.url).headers["content-type"] == artifact.media_type


def test_a_file_comes_whole_and_says_what_it_is(http: TestClient, path: str) -> None:
    answer = http.get(path)
    assert (answer.status_code, answer.content) == (200, WEIGHTS)
    headers = answer.headers
    assert headers["etag"] == ETAG
    assert headers["accept-ranges"] == "bytes"
    assert headers["content-length"] == str(len(WEIGHTS))
    assert headers["content-disposition"] == 'attachment; filename="model.safetensors"'
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "private, no-cache"
    assert headers["repr-digest"].startswith("sha-256=:")
    assert b64decode(headers["repr-digest"][9:-1]) == hashlib.sha256(WEIGHTS).digest()


RANGES = {
    "the beginning": ("bytes=0-99", 0, 100),
    "one byte": ("bytes=0-0", 0, 1),
    "the middle": ("bytes=100-199", 100, 200),
    "from there on": ("bytes=10000-", 10000, 10240),
    "the last byte": ("bytes=10239-", 10239, 10240),
    "the end": ("bytes=-10", 10230, 10240),
    "a suffix longer than the file": ("bytes=-99999", 0, 10240),
    "beyond the end": ("bytes=10000-99999", 10000, 10240),
    "other case and spaces": ("Bytes= 5-9 ", 5, 10),
}


@pytest.mark.parametrize("case", RANGES)
def test_a_range_is_answered_with_that_part(http: TestClient, path: str, case: str) -> None:
    header, start, end = RANGES[case]
    answer = http.get(path, headers={"Range": header})
    assert (answer.status_code, answer.content) == (206, WEIGHTS[start:end])
    assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/10240"
    assert answer.headers["content-length"] == str(end - start)
    assert answer.headers["etag"] == ETAG


@pytest.mark.parametrize(
    "header",
    ["bytes=10240-", "bytes=99999-100000", "bytes=5-2", "bytes=-0", "bytes=-", "bytes=", "bytes=a-b", "bytes",
     "bytes=1", "bytes=--1", "bytes=1-2-3", "bytes=" + "9" * 30 + "-", "bytes=" + ",".join(["0-"] * 1000),
     "bytes=\u0661-2"],
)  # fmt: skip
def test_a_bad_range_is_refused_with_the_size(http: TestClient, path: str, header: str) -> None:
    answer = http.get(path, headers={"Range": header.encode()})
    assert (answer.status_code, answer.json()["code"]) == (416, "range_not_satisfiable")
    assert answer.headers["content-range"] == "bytes */10240"
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("header", ["items=0-5", "bytes=0-1,5-6"])
def test_other_units_and_several_ranges_get_the_whole_file(http: TestClient, path: str, header: str) -> None:
    answer = http.get(path, headers={"Range": header})
    assert (answer.status_code, len(answer.content)) == (200, 10240)


@pytest.mark.parametrize(
    ("if_range", "status"),
    [(ETAG, 206), ('"other"', 200), (f"W/{ETAG}", 200), ("Tue, 24 Nov 2026 04:22:15 GMT", 200)],
)
def test_if_range_guards_against_another_file(http: TestClient, path: str, if_range: str, status: int) -> None:
    answer = http.get(path, headers={"Range": "bytes=5-9", "If-Range": if_range})
    assert answer.status_code == status
    assert answer.content == (WEIGHTS[5:10] if status == 206 else WEIGHTS)


def test_if_range_with_another_tag_makes_a_bad_range_harmless(http: TestClient, path: str) -> None:
    answer = http.get(path, headers={"Range": "bytes=99999-", "If-Range": '"other"'})
    assert (answer.status_code, answer.content) == (200, WEIGHTS)


@pytest.mark.parametrize("tag", [ETAG, f"W/{ETAG}", f'"a", {ETAG}', "*"])
def test_a_file_the_caller_has_is_not_sent_again(http: TestClient, path: str, tag: str) -> None:
    answer = http.get(path, headers={"If-None-Match": tag, "Range": "bytes=0-5"})
    assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", ETAG)


def test_another_tag_gets_the_file(http: TestClient, path: str) -> None:
    assert http.get(path, headers={"If-None-Match": '"other"'}).status_code == 200


def test_a_range_of_an_empty_file_cannot_be_had(http: TestClient, job_id: str) -> None:
    url = f"/v1/jobs/{job_id}/artifacts/empty.json"
    assert http.get(url).content == b""
    assert http.get(url, headers={"Range": "bytes=0-"}).headers["content-range"] == "bytes */0"


def test_head_tells_what_get_would(http: TestClient, path: str, job_id: str) -> None:
    for url in (path, f"/v1/jobs/{job_id}", f"/v1/jobs/{job_id}/artifacts", "/healthz"):
        got, asked = http.get(url), http.head(url)
        assert (asked.status_code, asked.content) == (200, b"")
        ignored = {"x-request-id", "ratelimit"}
        assert {k: v for k, v in asked.headers.items() if k not in ignored} == {
            k: v for k, v in got.headers.items() if k not in ignored
        }
    assert http.head("/v1/jobs/none").status_code == 404


def test_a_name_that_could_leave_the_job_is_not_there(http: TestClient, job_id: str) -> None:
    for name in ("%2e%2e", "%2e%2e%2fx", "%252e", "a%00b", "a%0d%0ab", "x" * 200, "model", "ä"):
        answer = http.get(f"/v1/jobs/{job_id}/artifacts/{name}")
        assert answer.status_code == 404, name


def test_files_of_a_job_under_way_are_not_ready(http: TestClient, post_job: Callable[..., str], house: House) -> None:
    waiting = post_job()
    running = house.take_up(post_job()).job_id
    for job_id in (waiting, running):
        assert http.get(f"/v1/jobs/{job_id}/artifacts").json()["data"] == []
        for part in ("artifacts/model.onnx", "bundle.zip"):
            answer = http.get(f"/v1/jobs/{job_id}/{part}")
            assert (answer.status_code, answer.json()["code"]) == (409, "not_ready")


def test_a_failed_job_has_no_files(http: TestClient, post_job: Callable[..., str], house: House) -> None:
    lease = house.take_up(post_job())
    house.fail(lease, JobError(code="engine_fault", detail="It broke.", hint="Tell us."))
    for part in ("artifacts/model.onnx", "bundle.zip"):
        answer = http.get(f"/v1/jobs/{lease.job_id}/{part}")
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
        assert "failed" in answer.json()["detail"]


def test_the_bundle_opens_and_its_checksums_hold(http: TestClient, job_id: str) -> None:
    answer = http.get(f"/v1/jobs/{job_id}/bundle.zip")
    assert answer.headers["content-type"] == "application/zip"
    assert answer.headers["content-disposition"] == f'attachment; filename="{job_id}.zip"'
    with zipfile.ZipFile(io.BytesIO(answer.content)) as bundle:
        assert bundle.testzip() is None
        found = {Path(name).name: bundle.read(name) for name in bundle.namelist()}
        assert {Path(name).parent.as_posix() for name in bundle.namelist()} == {job_id}
    assert found == FILES
    for line in found["SHA256SUMS"].decode().splitlines():
        digest, name = line.split("  ")
        assert hashlib.sha256(found[name]).hexdigest() == digest


def test_a_bundle_the_caller_has_is_not_sent_again(http: TestClient, job_id: str) -> None:
    url = f"/v1/jobs/{job_id}/bundle.zip"
    etag = http.head(url).headers["etag"]
    assert etag.startswith('W/"')
    assert http.get(url, headers={"If-None-Match": etag}).status_code == 304
    assert http.get(url, headers={"If-None-Match": '"other"'}).status_code == 200


def test_a_file_lost_from_the_storage_is_an_error_and_not_half_an_answer(
    http: TestClient, job_id: str, path: str, database: Database, settings: Settings
) -> None:
    with database.read() as session:
        keys = session.scalars(select(ArtifactRow.storage_key).order_by(ArtifactRow.name))
        for key in keys:
            (settings.data_dir / "storage" / key).unlink()
    for url in (path, f"/v1/jobs/{job_id}/bundle.zip"):
        answer = http.get(url)
        assert answer.status_code == 404
        assert answer.headers["content-type"] == "application/problem+json"
        assert str(settings.data_dir) not in answer.text


def test_a_caller_who_hangs_up_does_no_harm(live: str, api_key: str, house: House, digits: str) -> None:
    large = bytes(30_000_000)
    headers = {"Authorization": f"Bearer {api_key}"}
    with httpx2.Client(base_url=live, headers=headers, timeout=30) as client:
        from tests.house import SPEC

        lease = house.take_up(client.post("/v1/jobs", json=SPEC).json()["id"])
        house.succeed(lease, {"model.safetensors": large, "SHA256SUMS": sums({"model.safetensors": large})})
        url = f"/v1/jobs/{lease.job_id}/artifacts/model.safetensors"
        for part in (url, f"/v1/jobs/{lease.job_id}/bundle.zip"):
            with client.stream("GET", part) as answer:
                next(answer.iter_raw())
        with client.stream("GET", url, headers={"Range": "bytes=29999990-"}) as answer:
            assert answer.read() == bytes(10)
        assert client.get(url).content == large
        with zipfile.ZipFile(io.BytesIO(client.get(f"/v1/jobs/{lease.job_id}/bundle.zip").content)) as bundle:
            assert bundle.testzip() is None
