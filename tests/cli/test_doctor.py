"""The doctor, with real patients."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from stillhouse.cli.doctor import (
    Check,
    check_broker,
    check_database,
    check_disk,
    check_folder,
    check_service,
    check_settings,
)
from stillhouse.cli.session import Session
from tests.cli.terminal import Here
from tests.house import House


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests may run a service."""
    for name in list(os.environ):
        if name.startswith("STILLHOUSE_"):
            monkeypatch.delenv(name)


@pytest.fixture
def parts(tmp_path: Path) -> Any:
    """Looks at the parts the settings name, with an empty data folder and these variables."""

    def look(**variables: str) -> dict[str, Check]:
        env = os.environ | {"STILLHOUSE_DATA_DIR": str(tmp_path / "data")} | variables
        return by_name(check_settings(env))

    return look


def by_name(checks: Iterable[Check]) -> dict[str, Check]:
    """The checks, each of which must hold what it promises."""
    found = {check.name: check for check in checks}
    for check in found.values():
        assert (check.fix is not None) == (check.state == "failed"), check
        assert "\n" not in (check.fix or "")
    return found


def test_a_machine_with_everything_is_well_before_its_first_start(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    said = Here(capsys)("doctor", "--data-dir", str(tmp_path / "data"), "--json")
    assert (said.code, said.err) == (0, "")
    assert said.json()["ok"] is True
    assert {check["name"]: check["state"] for check in said.json()["checks"]} == {
        "python": "ok",
        "torch": "ok",
        "data folder": "ok",
        "disk": "ok",
        "database": "note",
        "broker": "ok",
        "service": "note",
    }
    # Looking leaves nothing behind.
    assert list(tmp_path.iterdir()) == []


def test_running_parts_are_asked(parts: Any, house: House, sqlite_url: str) -> None:
    found = parts(
        STILLHOUSE_DATABASE_URL=sqlite_url,
        STILLHOUSE_BROKER_URL=house.settings.broker_url,
        STILLHOUSE_STORAGE_URL=house.settings.resolved_storage_url,
    )
    assert {name: check.state for name, check in found.items()} == {
        "data folder": "ok",
        "disk": "ok",
        "database": "ok",
        "broker": "ok",
        "storage": "ok",
    }


def test_a_database_that_lacks_migrations_is_told_how_to_get_them(tmp_path: Path) -> None:
    path = tmp_path / "empty.db"
    path.touch()
    env = os.environ | {"STILLHOUSE_DATABASE_URL": f"sqlite:///{path}"}
    before = check_database(env)
    assert before.state == "failed"
    assert before.fix is not None
    subprocess.run([sys.executable, *before.fix.split()[1:]], check=True, env=env)
    assert check_database(env).state == "ok"


def test_a_database_that_is_away_is_found_and_its_password_is_not_shown() -> None:
    url = "postgresql+psycopg://me:hunter2@127.0.0.1:9/x"
    check = check_database(os.environ | {"STILLHOUSE_DATABASE_URL": url})
    assert check.state == "failed"
    assert "STILLHOUSE_DATABASE_URL" in str(check.fix)
    assert "refused" in check.detail
    assert "hunter2" not in str(check)
    check = check_database(os.environ | {"STILLHOUSE_DATABASE_URL": "sqlite://me:hunter2@/nowhere.db"})
    assert "nowhere.db" in check.detail
    assert "hunter2" not in str(check)


def test_a_broker_that_is_away_is_found() -> None:
    check = check_broker(os.environ | {"STILLHOUSE_BROKER_URL": "redis://127.0.0.1:9/0"})
    assert check.state == "failed"
    assert "STILLHOUSE_BROKER_URL" in str(check.fix)


def test_a_storage_that_cannot_be_written_is_found(parts: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    storage = parts(STILLHOUSE_STORAGE_URL=(tmp_path / "file" / "below").as_uri())["storage"]
    assert storage.state == "failed"
    assert "cannot be written" in storage.detail


def test_a_folder_that_cannot_be_written_is_found(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file is in the way")
    check = check_folder(tmp_path / "data")
    assert check.state == "failed"
    assert "--data-dir" in str(check.fix)


def test_a_disk_without_space_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=5_000_000))
    check = check_disk(tmp_path / "not" / "there" / "yet")
    assert check.state == "failed"
    assert "5.0 MB" in check.detail


def test_a_setting_that_is_wrong_is_named(parts: Any) -> None:
    settings = parts(STILLHOUSE_LEASE_SECONDS="soon")["settings"]
    assert settings.state == "failed"
    assert "STILLHOUSE_LEASE_SECONDS" in settings.detail


def test_a_service_without_workers_is_told_to_have_one(house: House) -> None:
    service = by_name(check_service(Session(url=house.url, key=house.key)))["service"]
    assert service.state == "failed"
    assert "no worker" in service.detail
    assert "python -m worker" in str(service.fix)


def test_a_service_that_should_be_there_and_is_not_is_a_failure(tmp_path: Path) -> None:
    assert by_name(check_service(Session()))["service"].state == "note"
    assert by_name(check_service(Session(url="http://127.0.0.1:9")))["service"].state == "failed"
    assert by_name(check_service(Session(url="nonsense")))["service"].state == "failed"
    # What `up` wrote down when it last ran is another matter: it may have been stopped.
    config = tmp_path / "config" / "stillhouse" / "client.json"
    config.parent.mkdir(parents=True)
    config.write_text('{"url": "http://127.0.0.1:9", "key": "shk_x"}')
    assert by_name(check_service(Session()))["service"].state == "note"


def test_people_get_a_line_per_check_and_a_fix_below_each_failure(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("STILLHOUSE_BROKER_URL", "redis://127.0.0.1:9/0")
    said = Here(capsys)("doctor", "--data-dir", str(tmp_path))
    assert said.code == 1
    assert "✓ python" in said.out
    assert "✗ broker" in said.out
    assert "\n  fix: Start the broker" in said.out
