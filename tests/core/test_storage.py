"""Storage in a folder and in an S3-compatible store: the same promises."""

from pathlib import Path

import pytest

from core.settings import Settings
from core.storage import LocalStorage, Storage, make_storage, sha256_of
from stillhouse.spec.errors import NotFound, Unavailable
from tests.object_store import CREDENTIALS, ObjectStore


@pytest.fixture(params=["folder", "s3"])
def storage_kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def storage(tmp_path: Path, storage_settings: dict[str, str]) -> Storage:
    return make_storage(Settings.model_validate({"data_dir": tmp_path} | storage_settings))


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


def test_files_are_listed_with_their_sizes_and_moved(storage: Storage, file: Path) -> None:
    for key in ("projects/a/x", "projects/a/y.onnx"):
        storage.put(key, file)
    storage.move("projects/a/x", "quarantine/projects/a/x")
    storage.move("projects/a/x", "quarantine/projects/a/x")  # it is gone already
    found = {entry.key: (entry.bytes, entry.temporary) for entry in storage.entries()}
    whole = (file.stat().st_size, False)
    assert found == {"projects/a/y.onnx": whole, "quarantine/projects/a/x": whole}
    assert (storage.size("projects/a/x"), storage.size("projects/a/y.onnx")) == (None, whole[0])


def test_the_file_of_a_check_whose_process_died_is_temporary(storage: Storage, file: Path) -> None:
    storage.put(f".probe-{12345}", file)
    assert [entry.temporary for entry in storage.entries()] == [True]


def test_a_store_that_went_away_is_told_and_found_again(
    s3: ObjectStore, monkeypatch: pytest.MonkeyPatch, file: Path, tmp_path: Path
) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    storage = make_storage(Settings.model_validate(s3.new_bucket()))
    storage.put("k", file)
    s3.stop()
    try:
        for ask in (
            lambda: storage.put("k", file), lambda: storage.size("k"), lambda: storage.delete("k"), storage.check,
            lambda: list(storage.read("k")), lambda: list(storage.entries()), lambda: storage.move("k", "l"),
            lambda: storage.fetch("k", tmp_path / "cache"), lambda: storage.delete_prefix("k"),
        ):  # fmt: skip
            with pytest.raises(Unavailable):
                ask()
        assert not list(tmp_path.glob("cache/*"))
    finally:
        s3.start()
    assert b"".join(storage.read("k")) == file.read_bytes()


def test_a_working_storage_passes_its_check(storage: Storage) -> None:
    storage.check()


def test_a_store_without_its_bucket_fails_its_check(s3: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    storage = make_storage(Settings(storage_url="s3://no-such-bucket", storage_endpoint=s3.endpoint))
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
