"""`core.ingest_child.ingest`: the process is started without secrets, ends in time, and leaves nothing behind."""

import json
import logging
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from core import ingest_child
from core.ingest_child import ingest
from stillhouse.spec.errors import InvalidData, ServerFault, StillhouseError, TooLarge, UnsupportedMedia
from stillhouse.spec.limits import Limits
from stillhouse.spec.upload import IngestRequest
from tests.ingest.conftest import load
from tests.ingest.making import archive, csv, good_rows, pets


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files, which must be empty again."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def request_for(tmp_path: Path) -> Callable[..., IngestRequest]:
    def make(data: bytes, limits: Limits | None = None) -> IngestRequest:
        folder = tmp_path / "data"
        folder.mkdir(exist_ok=True)
        (folder / "upload").write_bytes(data)
        return IngestRequest(source=str(folder / "upload"), output=str(folder / "stored"), limits=limits or Limits())

    return make


def refused(request: IngestRequest, temporary: Path) -> StillhouseError:
    with pytest.raises(StillhouseError) as caught:
        ingest(request)
    assert list(temporary.iterdir()) == []
    assert [path.name for path in Path(request.output).parent.iterdir()] == ["upload"]
    assert "/tmp" not in str(caught.value)
    assert not running(os.getpid())
    return caught.value


def running(parent: int) -> list[int]:
    """Readers that `parent` started and that live."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            status, command = (folder / "status").read_text(), (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if f"PPid:\t{parent}\n" in status and b"ingest" in command and "State:\tZ" not in status:
            found.append(int(folder.name))
    return found


GOOD = csv("a,b,label", good_rows())
BIG = b"a,b,label\n" + csv("1,red,no", good_rows(50_000)) * 80


def test_an_upload_is_stored(request_for: Callable[..., IngestRequest], temporary: Path) -> None:
    request = request_for(GOOD)
    stored = ingest(request)
    assert stored.format == "csv"
    assert stored.dataset.facts == load(Path(request.output)).facts
    assert sorted(path.name for path in Path(request.output).parent.iterdir()) == ["stored", "upload"]
    assert list(temporary.iterdir()) == []


def test_relative_paths_mean_the_callers_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "upload").write_bytes(GOOD)
    monkeypatch.chdir(tmp_path)
    ingest(IngestRequest(source="upload", output="stored"))
    assert (tmp_path / "stored").exists()


@pytest.mark.parametrize(
    ("data", "limits", "error", "code"),
    [
        (GOOD + b"1,2\n", Limits(), InvalidData, "ragged_row"),
        (GOOD, Limits(max_rows=3), TooLarge, "too_many_rows"),
        (b"\x1f\x8b" + bytes(30), Limits(), UnsupportedMedia, "unsupported_format"),
        (archive([*pets(), ("../x.png", b"")]), Limits(), InvalidData, "unsafe_name"),
    ],
)
def test_a_refusal_is_raised_as_its_class(
    request_for: Callable[..., IngestRequest],
    temporary: Path,
    data: bytes,
    limits: Limits,
    error: type[StillhouseError],
    code: str,
) -> None:
    raised = refused(request_for(data, limits), temporary)
    assert type(raised) is error
    assert raised.errors[0].code == code


def test_a_reader_out_of_time_is_ended(request_for: Callable[..., IngestRequest], temporary: Path) -> None:
    error = refused(request_for(BIG, Limits(max_ingest_seconds=0.8)), temporary)
    assert (type(error), error.errors[0].code) == (InvalidData, "too_slow")
    assert "0.8 seconds" in error.detail


def test_a_reader_out_of_memory_says_so(request_for: Callable[..., IngestRequest], temporary: Path) -> None:
    error = refused(request_for(BIG, Limits(max_ingest_memory_bytes=270 * 1024**2)), temporary)
    assert (type(error), error.errors[0].code) == (InvalidData, "too_much_memory")
    assert "0.264 GiB" in error.detail


@pytest.mark.parametrize(
    ("script", "error", "code"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", InvalidData, "unreadable"),
        ("import os; os.abort()", InvalidData, "unreadable"),
        ("raise RuntimeError('a fault')", InvalidData, "unreadable"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", InvalidData, "too_much_memory"),
        (
            "import sys, os; sys.stderr.write('std::bad_alloc'); sys.stderr.flush(); os.abort()",
            InvalidData,
            "too_much_memory",
        ),
        ("import os, signal; os.kill(os.getpid(), signal.SIGXCPU)", InvalidData, "too_slow"),
        ("print('no answer')", ServerFault, None),
        ("pass", ServerFault, None),
        ("print('{}')", ServerFault, None),
    ],
)
def test_a_reader_that_breaks_off_becomes_a_clean_error(
    request_for: Callable[..., IngestRequest],
    temporary: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    script: str,
    error: type[StillhouseError],
    code: str | None,
) -> None:
    monkeypatch.setattr(ingest_child, "_COMMAND", (sys.executable, "-c", script))
    with caplog.at_level(logging.WARNING):
        raised = refused(request_for(GOOD), temporary)
    assert type(raised) is error
    assert [e.code for e in raised.errors] == ([code] if code else [])
    assert caplog.records, "the operator can read what happened"


def test_a_file_half_written_by_a_dying_reader_is_removed(
    request_for: Callable[..., IngestRequest], temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = (
        "import json, os, pathlib; output = json.loads(pathlib.Path('request.json').read_text())['output'];"
        "pathlib.Path(output + '.partial').write_bytes(b'half'); os.kill(os.getpid(), 9)"
    )
    monkeypatch.setattr(ingest_child, "_COMMAND", (sys.executable, "-c", script))
    assert refused(request_for(GOOD), temporary).errors[0].code == "too_much_memory"


def test_the_whole_group_of_a_reader_is_killed(
    request_for: Callable[..., IngestRequest], temporary: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script = (
        "import pathlib, subprocess, sys; child = subprocess.Popen(['sleep', '600']);"
        f"pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(child.pid)); child.wait()"
    )
    monkeypatch.setattr(ingest_child, "_COMMAND", (sys.executable, "-c", script))
    refused(request_for(GOOD, Limits(max_ingest_seconds=1.5)), temporary)
    wait_until(lambda: not alive(int((tmp_path / "pid").read_text())))


def alive(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def wait_until(condition: Callable[[], bool]) -> None:
    """Return once it holds; the test's own time limit is generous and asserts nothing about speed."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)


def test_the_reader_knows_no_secret_and_works_in_a_folder_of_its_own(
    request_for: Callable[..., IngestRequest], temporary: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("STILLHOUSE_SECRET_KEY", "canary")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary")
    script = (
        "import json, os, pathlib, sys; pathlib.Path(sys.argv[1]).write_text(json.dumps("
        "{'env': dict(os.environ), 'cwd': os.getcwd(), 'argv': sys.argv, 'files': os.listdir('.'),"
        " 'group': os.getpgid(0), 'pid': os.getpid(), 'open': os.listdir('/proc/self/fd')}))"
    )
    seen_file = str(tmp_path / "seen.json")
    monkeypatch.setattr(ingest_child, "_COMMAND", (sys.executable, "-c", script, seen_file))
    refused(request_for(GOOD), temporary)
    seen = json.loads(Path(seen_file).read_text())
    assert "canary" not in json.dumps(seen)
    assert Path(seen["cwd"]).parent == temporary
    assert sorted(seen["files"]) == ["request.json", "stderr", "stdout"]
    assert seen["group"] == seen["pid"]
    assert len(seen["open"]) == 4, "standard streams, and the listing itself"


def test_a_reader_ends_with_the_service_that_waits_for_it(tmp_path: Path) -> None:
    (tmp_path / "upload").write_bytes(BIG)
    script = (
        "from core.ingest_child import ingest; from stillhouse.spec.upload import IngestRequest;"
        f"ingest(IngestRequest(source={str(tmp_path / 'upload')!r}, output={str(tmp_path / 'stored')!r}))"
    )
    service = subprocess.Popen([sys.executable, "-c", script])
    limit = re.compile(r"Max address space +\d+ ")
    readers: list[int] = []

    def limited() -> bool:
        readers[:] = running(service.pid)
        return any(limit.search(Path(f"/proc/{pid}/limits").read_text()) for pid in readers)

    wait_until(limited)
    service.send_signal(signal.SIGKILL)
    service.wait()
    wait_until(lambda: not any(map(alive, readers)))
    assert not (tmp_path / "stored").exists(), "it was killed, it did not finish"
