"""Schemathesis makes requests from the OpenAPI document and holds every answer against it: all of its checks."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hostile.server import Service

pytestmark = pytest.mark.xdist_group("hostile")

LARGE = os.environ.get("STILLHOUSE_FUZZ") == "large"
_CONFIG = Path(__file__).with_name("schemathesis.toml")
# These end the key that everything else is asked with, so they are asked last. Each upload of a model starts torch,
# which is for `make fuzz`.
_ENDS_THE_KEY = ("revoke_key", "rotate_key")
_SLOW = () if LARGE else ("create_model",)


def complaints(service: Service, folder: Path, *more: str) -> str:
    """What it found; empty when it found nothing."""
    amount = ("200", "examples,coverage,fuzzing,stateful") if LARGE else ("5", "examples,coverage")
    command = [
        *(str(Path(sys.executable).with_name("st")), "--config-file", str(_CONFIG)),
        *("run", f"{service.url}/openapi.json", "-H", f"Authorization: Bearer {service.key}"),
        *("--checks", "all", "--seed", "1", "--no-shrink", "--no-color"),
        *("--max-examples", amount[0], "--phases", amount[1], *more),
    ]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert "Test cases" in done.stdout, done.stdout[-2000:] + done.stderr[-2000:]
    return "" if done.returncode == 0 else done.stdout


def test_every_answer_is_as_the_document_says(on_sqlite: Service, tmp_path: Path) -> None:
    left_out = [word for name in (*_ENDS_THE_KEY, *_SLOW) for word in ("--exclude-operation-id", name)]
    assert complaints(on_sqlite, tmp_path, *left_out) == ""


def test_so_are_those_about_keys_that_end(on_sqlite: Service, tmp_path: Path) -> None:
    chosen = [word for name in _ENDS_THE_KEY for word in ("--include-operation-id", name)]
    assert complaints(on_sqlite, tmp_path, *chosen) == ""
    assert on_sqlite.children() == []
    assert "Traceback" not in (on_sqlite.folder / "log").read_text()
