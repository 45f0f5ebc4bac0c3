"""`stillhouse up` as its user meets it: a process, a terminal, a Ctrl-C."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from tests.worker.service import PATIENCE_SECONDS, eventually, family, gone


class Up:
    """One run of the command."""

    def __init__(self, folder: Path, *options: str, port: int = 0) -> None:
        self.ready_file = folder.parent / f"{folder.name}.ready.json"
        self.ready_file.unlink(missing_ok=True)
        self.output = folder.parent / f"{folder.name}.out"
        command = [sys.executable, "-m", "stillhouse", "up", "--data-dir", str(folder), "--port", str(port)]
        command += ["--json-ready", str(self.ready_file), *options]
        with self.output.open("wb") as out:
            self.process = subprocess.Popen(
                command,
                stdout=out,
                stderr=out,
                start_new_session=True,
                env=os.environ | {"XDG_CONFIG_HOME": str(folder.parent / "config"), "STILLHOUSE_TRAINER_THREADS": "1"},
            )

    def wait_ready(self) -> dict[str, str]:
        eventually(lambda: self.ready_file.exists() or self.process.poll() is not None, "the service answers")
        assert self.ready_file.exists(), self.said()
        found: dict[str, str] = json.loads(self.ready_file.read_text())
        return found

    def said(self) -> str:
        return self.output.read_text()

    def end(self) -> None:
        for pid in [self.process.pid, *family(self.process.pid)]:
            if not gone(pid):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Any]:
    started: list[Up] = []

    def begin(name: str = "data", *options: str, port: int = 0) -> Up:
        started.append(Up(tmp_path / name, *options, port=port))
        return started[-1]

    yield begin
    for run in started:
        run.end()


def test_it_serves_until_ctrl_c_and_leaves_no_process(start: Any, tmp_path: Path) -> None:
    run = start()
    ready = run.wait_ready()
    assert httpx2.get(f"{ready['url']}/readyz", timeout=PATIENCE_SECONDS).json()["workers"] == 1
    key = {"Authorization": f"Bearer {ready['key']}"}
    assert httpx2.get(f"{ready['url']}/v1/jobs", headers=key, timeout=PATIENCE_SECONDS).json()["data"] == []
    assert ready["url"] in run.said()
    assert json.loads((tmp_path / "config/stillhouse/client.json").read_text()) == ready
    assert (tmp_path / "config/stillhouse/client.json").stat().st_mode & 0o077 == 0
    started = family(run.process.pid)
    assert len(started) >= 6  # broker, API, worker, supervisor, fork server, reconciler
    run.process.send_signal(signal.SIGINT)
    assert run.process.wait(timeout=PATIENCE_SECONDS) == 0
    assert all(gone(pid) for pid in started)


def test_the_same_folder_keeps_its_key_and_its_jobs(start: Any) -> None:
    first = start()
    ready = first.wait_ready()
    headers = {"Authorization": f"Bearer {ready['key']}"}
    body = {
        "teacher": {"train": {"architecture": {"name": "mlp", "hidden": [8]}, "epochs": 3000}},
        "dataset": {"builtin": "digits"},
        "student": {"name": "mlp", "hidden": [4]},
    }
    job = httpx2.post(f"{ready['url']}/v1/jobs", headers=headers, json=body, timeout=PATIENCE_SECONDS).json()
    first.process.send_signal(signal.SIGTERM)
    first.process.wait(timeout=PATIENCE_SECONDS)
    again = start().wait_ready()
    assert again["key"] == ready["key"]

    def runs() -> bool:
        found = httpx2.get(f"{again['url']}/v1/jobs/{job['id']}", headers=headers, timeout=PATIENCE_SECONDS).json()
        assert found["status"] in ("queued", "running")
        return bool(found["status"] == "running")

    eventually(runs, "the job goes on")


def test_a_taken_port_is_named_with_a_free_one(start: Any) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        run = start(port=port)
        assert run.process.wait(timeout=PATIENCE_SECONDS) == 1
    said = run.said()
    assert f"Port {port} on 127.0.0.1 cannot be used" in said
    offered = int(re.search(r"--port (\d+)", said).group(1))  # type: ignore[union-attr]
    assert offered > port
    assert "Traceback" not in said


def test_a_second_start_on_a_folder_in_use_is_refused(start: Any) -> None:
    first = start()
    first.wait_ready()
    second = start()
    assert second.process.wait(timeout=PATIENCE_SECONDS) == 1
    assert "already runs" in second.said()
    assert str(first.process.pid) in second.said()
    assert first.process.poll() is None


def test_a_part_that_dies_is_started_again(start: Any) -> None:
    run = start()
    ready = run.wait_ready()
    for process in psutil.Process(run.process.pid).children():
        process.kill()
        process.wait()

    def answers() -> bool:
        try:
            return bool(httpx2.get(f"{ready['url']}/readyz", timeout=5).status_code == 200)
        except httpx2.HTTPError:
            return False

    eventually(answers, "the service answers again")
    assert run.process.poll() is None
    assert "starting it again" in run.said()


def test_nothing_outlives_a_killed_up(start: Any) -> None:
    run = start()
    run.wait_ready()
    started = family(run.process.pid)
    run.process.kill()
    run.process.wait()
    eventually(lambda: all(gone(pid) for pid in started), "everything it started ends")


def test_a_folder_that_cannot_be_made_is_named(start: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    run = start("file")
    assert run.process.wait(timeout=PATIENCE_SECONDS) == 1
    assert "Traceback" not in run.said()
    assert "--data-dir" in run.said()
