"""The page for operators: its commands exist and do what it says, its numbers and words are those of the code."""

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from core.db import Database
from core.settings import Settings
from models import keys, migrate
from operate.fsck import GRACE, MENDING, QUARANTINE, Kind
from stillhouse.cli.app import run
from tests.worker.service import environment

PAGE = (Path(__file__).resolve().parents[2] / "docs/operations.md").read_text(encoding="utf-8")
COMMANDS = [
    line.partition("#")[0].strip()
    for block in re.findall(r"(?s)```bash\n(.*?)```", PAGE)
    for line in block.strip().splitlines()
]


def test_every_setting_it_names_is_one_and_the_numbers_are_right() -> None:
    named = {name.lower() for name in re.findall(r"STILLHOUSE_([A-Z_]+)", PAGE)}
    assert named - set(Settings.model_fields) == set()
    assert {"trash_days", "retention_job_days", "retention_dataset_days", "retention_model_days"} <= named
    assert f"`STILLHOUSE_TRASH_DAYS` ({Settings.model_fields['trash_days'].default:g})" in PAGE
    assert GRACE.total_seconds() == 3600
    assert "older than an hour" in PAGE
    assert f"`{QUARANTINE}`" in PAGE


def test_it_explains_everything_fsck_can_find() -> None:
    assert re.findall(r"(?m)^\| `(\w+)` \|", PAGE) == list(get_args(Kind)) == list(MENDING)


def test_the_commands_are_commands(capsys: pytest.CaptureFixture[str]) -> None:
    ours = [shlex.split(line)[1:] for line in COMMANDS if line.startswith("stillhouse")]
    assert len(ours) >= 8
    for words in ours:
        command = [word for word in words if word.islower() and "." not in word and word != "new-folder"]
        plain = [word for word in command if not word.startswith("-")]
        assert run([*plain, "--help"]) == 0, words
        said = capsys.readouterr().out
        assert all(option in said for option in command if option.startswith("--")), words


def test_what_runs_on_the_service_itself_runs_as_written(tmp_path: Path) -> None:
    """In the order of the page, on a data folder of this test."""
    settings = Settings(data_dir=tmp_path / "stillhouse-data", secret_key="s" * 32)
    settings.data_dir.mkdir()
    migrate.upgrade(settings.resolved_database_url)
    database = Database(settings.resolved_database_url)
    with database.write() as session:
        keys.project_named(session, "default")
    database.close()
    served = [line for line in COMMANDS if line.split()[1] in ("fsck", "backup", "restore", "limits", "-m")]
    assert len(served) == 12
    for line in served:
        words = [sys.executable, "-m", "stillhouse", *line.split()[1:]]
        words = [sys.executable, *line.split()[1:]] if line.startswith("python") else words
        done = subprocess.run(words, env=environment(settings), cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, (line, done.stderr)
    assert (tmp_path / "new-folder" / "stillhouse.db").is_file()
