"""The form of a backup: what is damaged, cut or of a newer release is refused; what fails leaves nothing."""

import json
import shutil
import tarfile
from pathlib import Path

import pytest

from core.db import Database
from core.settings import Settings
from models import holds
from operate import backup
from operate.archive import Reader
from operate.opening import Refused
from operate.restore import restore
from tests.shelf import Shelf


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """The form is the same whichever database."""
    return sqlite_url


@pytest.fixture
def storage_kind() -> str:
    """And whichever storage."""
    return "folder"


@pytest.fixture
def elsewhere(tmp_path: Path) -> Settings:
    """Another, empty service."""
    return Settings(
        data_dir=tmp_path / "elsewhere", database_url=f"sqlite:///{tmp_path / 'elsewhere.db'}", secret_key="s" * 32
    )


def take(shelf: Shelf, target: Path) -> None:
    backup.take(shelf.database, shelf.storage, shelf.house.settings, target)


def bring_back(source: Path, settings: Settings) -> Database:
    reader = Reader(source)
    try:
        restore(reader, settings)
    finally:
        reader.close()
    return Database(settings.resolved_database_url)


@pytest.mark.parametrize("harm", ["flip", "cut", "remove", "no manifest"])
@pytest.mark.parametrize("name", ["saved", "saved.tar"])
def test_a_damaged_backup_is_refused_and_nothing_is_written(
    shelf: Shelf, elsewhere: Settings, tmp_path: Path, harm: str, name: str
) -> None:
    shelf.job()
    source = tmp_path / name
    take(shelf, source)
    folder = source
    if source.is_file():
        folder = tmp_path / "unpacked"
        with tarfile.open(source) as tar:
            tar.extractall(folder, filter="data")
    victim = sorted(path for path in (folder / "files").rglob("*") if path.is_file())[0]
    if harm == "no manifest":
        (folder / "manifest.json").unlink()
    elif harm == "remove":
        victim.unlink()
    else:
        victim.write_bytes(b"x" * victim.stat().st_size if harm == "flip" else b"")
    if source.is_file():
        source.unlink()
        with tarfile.open(source, "w") as tar:
            for path in sorted(folder.rglob("*")):
                if path.is_file():
                    tar.add(path, path.relative_to(folder).as_posix())
    with pytest.raises(Refused, match="no whole backup" if harm == "no manifest" else "damaged"):
        bring_back(source, elsewhere)
    assert not (elsewhere.data_dir / "storage").exists()


def test_a_tar_that_was_cut_is_refused(shelf: Shelf, elsewhere: Settings, tmp_path: Path) -> None:
    shelf.job()
    source = tmp_path / "saved.tar"
    take(shelf, source)
    source.write_bytes(source.read_bytes()[:-20_000])
    with pytest.raises(Refused, match="backup"):
        bring_back(source, elsewhere)


def test_a_place_that_is_not_empty_is_refused(shelf: Shelf, elsewhere: Settings, tmp_path: Path) -> None:
    shelf.job()
    take(shelf, tmp_path / "saved")
    with pytest.raises(Refused, match="storage is not empty"):
        bring_back(tmp_path / "saved", shelf.house.settings)
    only_rows = shelf.house.settings.model_copy(update={"data_dir": tmp_path / "new"})
    only_rows.__dict__.pop("resolved_storage_url", None)
    with pytest.raises(Refused, match="database is not empty"):
        bring_back(tmp_path / "saved", only_rows)
    with pytest.raises(Refused, match="is there already"):
        take(shelf, tmp_path / "saved")


def test_a_backup_of_a_newer_release_is_refused(shelf: Shelf, elsewhere: Settings, tmp_path: Path) -> None:
    take(shelf, tmp_path / "saved")
    manifest = tmp_path / "saved/manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"revision": "29990101_01"}))
    with pytest.raises(Refused, match="newer"):
        bring_back(tmp_path / "saved", elsewhere)


def test_a_backup_that_fails_leaves_nothing_behind(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf.job()
    monkeypatch.setattr(type(shelf.storage), "size", lambda *_: 10**6)
    for name in ("saved", "saved.tar"):
        with pytest.raises(Refused, match="changed"):
            take(shelf, tmp_path / name)
    assert [path.name for path in tmp_path.iterdir() if "saved" in path.name] == []
    with shelf.database.write() as session:
        assert not holds.in_force(session)


def test_the_key_of_the_service_is_saved_when_it_lies_in_the_data_folder(
    shelf: Shelf, elsewhere: Settings, tmp_path: Path
) -> None:
    own = shelf.house.settings.model_copy(update={"secret_key": None})
    own.data_dir.mkdir(parents=True, exist_ok=True)
    (own.data_dir / "secret.key").write_text("k" * 40)
    backup.take(shelf.database, shelf.storage, own, tmp_path / "saved")
    bring_back(tmp_path / "saved", elsewhere.model_copy(update={"secret_key": None})).close()
    key = elsewhere.data_dir / "secret.key"
    assert (key.read_text(), key.stat().st_mode & 0o777) == ("k" * 40, 0o600)
    shutil.rmtree(elsewhere.data_dir)
