"""Command lines, run in this process or in a process of their own."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from stillhouse.cli.app import run
from tests.house import House


@dataclass(frozen=True)
class Said:
    """What a command left."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """Standard output, which must be one JSON document; nothing may stand beside it."""
        return json.loads(self.out)


@dataclass(frozen=True)
class Here:
    """Runs commands in this process."""

    capsys: pytest.CaptureFixture[str]

    def __call__(self, *arguments: str) -> Said:
        self.capsys.readouterr()
        code = run(list(arguments))
        captured = self.capsys.readouterr()
        return Said(code, captured.out, captured.err)


def environment(house: House, **more: str) -> dict[str, str]:
    """Variables of a process that talks to the house."""
    kept = {name: value for name, value in os.environ.items() if name not in ("CI", "NO_COLOR", "COLUMNS")}
    return kept | {"STILLHOUSE_URL": house.url, "STILLHOUSE_API_KEY": house.key, "TERM": "xterm-256color"} | more


def start(*arguments: str, env: Mapping[str, str], **options: Any) -> "subprocess.Popen[str]":
    """A command in a process of its own."""
    command = [sys.executable, "-m", "stillhouse", *arguments]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
    return subprocess.Popen(command, env=dict(env), stdin=subprocess.DEVNULL, **options)


def elsewhere(*arguments: str, env: Mapping[str, str]) -> Said:
    """Run a command in a process of its own to its end."""
    process = start(*arguments, env=env)
    out, err = process.communicate(timeout=60)
    return Said(process.returncode, out, err)


def on_a_terminal(
    *arguments: str, env: Mapping[str, str], when: Callable[[str], None] = lambda seen: None, columns: int = 100
) -> Said:
    """Run a command on a pseudo-terminal; `when` is told everything seen so far after each bit of it."""
    ours, theirs = pty.openpty()
    process = start(*arguments, env=dict(env) | {"COLUMNS": str(columns), "LINES": "30"}, stdout=theirs, stderr=theirs)
    os.close(theirs)
    seen = b""
    while True:
        try:
            chunk = os.read(ours, 65_536)
        except OSError:
            break  # the last process has let go of its end
        if not chunk:
            break
        seen += chunk
        when(seen.decode(errors="replace"))
    os.close(ours)
    return Said(process.wait(30), seen.decode(errors="replace"), "")
