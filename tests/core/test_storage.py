"""Storage in a folder and in an S3-compatible store: the same promises."""

from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from core.settings import Settings
from core.storage import LocalStorage, Storage, make_storage, sha256_of
from stillhouse.spec.errors import NotFound, Unavailable


@pytest.fixture(scope="module")
def s3_endpoint() -> Iterator[str]:
    """A real HTTP server that speaks S3."""
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(params=["folder", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Storage:
    if request.param == "folder":
        return make_storage(Settings(data_dir=tmp_path))
    endpoint = request.getfixturevalue("s3_endpoint")
    for name, value in {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", "AWS_REGION": "us-east-1"}.items():
        monkeypatch.setenv(name, value)
    bucket = tmp_path.name.replace("_", "-")[:60].strip("-").lower()
    boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1").create_bucket(Bucket=bucket)
    return make_storage(Settings(storage_url=f"s3://{bucket}/prefix", storage_endpoint=endpoint))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(bytes(range(256)) * 20_000)  # more than one chunk
    return path


def test_what_was_put_is_read_back_whole(storage: Storage, file: Path) -> None:
    storage.put("projects/a/x.bin", file)
    assert b"".join(storage.read("projects/a/x.bin")) == file.read_bytes()


@pytest.mark.parametrize(
    ("start", "end"), [(0, 1), (10, 300), (5_119_999, 5_120_000), (1_048_570, 3_000_000), (7, None)]
)
def test_a_range_is_read(storage: Storage, file: Path, start: int, end: int | None) -> None:
    storage.put("k", file)
    assert b"".join(storage.read("k", start=start, end=end)) == file.read_bytes()[start:end]


def test_putting_again_replaces(storage: Storage, file: Path, tmp_path: Path) -> None:
    storage.put("k", file)
    other = tmp_path / "other"
    other.write_bytes(b"new")
    storage.put("k", other)
    assert b"".join(storage.read("k")) == b"new"


def test_a_fetched_file_has_the_same_bytes_and_is_fetched_once(storage: Storage, file: Path, tmp_path: Path) -> None:
    storage.put("k", file)
    first = storage.fetch("k", tmp_path / "cache")
    assert sha256_of(first) == sha256_of(file)
    assert storage.fetch("k", tmp_path / "cache") == first
    assert not list(tmp_path.glob("cache/*.part"))


def test_a_missing_file_is_not_found(storage: Storage, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        list(storage.read("no/such"))
    with pytest.raises(NotFound):
        storage.fetch("no/such", tmp_path / "cache")
    assert not list(tmp_path.glob("cache/*"))


def test_deleting_is_harmless_when_there_is_nothing(storage: Storage, file: Path) -> None:
    storage.put("a/b", file)
    for _ in range(2):
        storage.delete("a/b")
    storage.delete_prefix("no/such")
    with pytest.raises(NotFound):
        list(storage.read("a/b"))


def test_a_prefix_is_deleted_and_its_neighbours_stay(storage: Storage, file: Path) -> None:
    for key in ("jobs/1/a1/x", "jobs/1/a1/y", "jobs/1/a10/x"):
        storage.put(key, file)
    storage.delete_prefix("jobs/1/a1")
    with pytest.raises(NotFound):
        list(storage.read("jobs/1/a1/x"))
    assert next(storage.read("jobs/1/a10/x"))


def test_a_working_storage_passes_its_check(storage: Storage) -> None:
    storage.check()


def test_a_store_without_its_bucket_fails_its_check(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    storage = make_storage(Settings(storage_url="s3://no-such-bucket", storage_endpoint=s3_endpoint))
    with pytest.raises(Unavailable):
        storage.check()


def test_a_folder_that_is_a_file_fails_its_check(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    with pytest.raises(Unavailable):
        LocalStorage(tmp_path / "x").check()


def test_a_key_cannot_leave_the_folder(tmp_path: Path, file: Path) -> None:
    storage = LocalStorage(tmp_path / "root")
    for key in ("../out", "a/../../out", "/etc/passwd"):
        with pytest.raises(ValueError, match="left its folder"):
            storage.put(key, file)


def test_a_put_that_fails_leaves_the_old_file_and_no_part(tmp_path: Path, file: Path) -> None:
    storage = LocalStorage(tmp_path / "root")
    storage.put("k", file)
    with pytest.raises(Unavailable):
        storage.put("k", tmp_path / "missing")
    assert b"".join(storage.read("k")) == file.read_bytes()
    assert [path.name for path in (tmp_path / "root").iterdir()] == ["k"]


def test_deleting_the_last_file_of_a_folder_removes_the_folder(tmp_path: Path, file: Path) -> None:
    storage = LocalStorage(tmp_path / "root")
    for key in ("projects/p/a/x", "projects/p/b/x", "projects/p/b/y"):
        storage.put(key, file)
    storage.delete("projects/p/a/x")
    storage.delete("projects/p/b/x")
    assert not (tmp_path / "root/projects/p/a").exists()
    assert (tmp_path / "root/projects/p/b/y").is_file()
    storage.delete("projects/p/b/y")
    assert list((tmp_path / "root").iterdir()) == []
