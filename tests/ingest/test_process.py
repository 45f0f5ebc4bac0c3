"""`python -m ingest` as the service starts it: one line of JSON, within limits, whatever the bytes are."""

import json
import os
import struct
import subprocess
import sys
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from stillhouse.spec.limits import Limits
from stillhouse.spec.upload import EXIT_OUT_OF_MEMORY, IngestAnswer, IngestRequest
from tests.ingest.conftest import load
from tests.ingest.making import archive, csv, good_rows, image, npz, parquet, pets, pixels
from tests.ingest.test_folders import huge_png
from tests.ingest.test_npz import FLAT, CreatesAFile, N, Y

MIB = 1024**2


# What `-m ingest` does, and at its end the greatest memory it had. (getrusage counts the process it was forked from.)
_WATCHED = """
import atexit, pathlib, re, runpy, sys
peak = lambda: re.search("VmHWM.*", pathlib.Path("/proc/self/status").read_text())[0]
atexit.register(lambda: pathlib.Path(sys.argv[1]).with_name("peak").write_text(peak()))
runpy.run_module("ingest", run_name="__main__", alter_sys=True)
"""
_MEASURED = ("-c", _WATCHED)


@dataclass(frozen=True)
class Ended:
    """How a process ended."""

    status: int
    answer: IngestAnswer | None
    stderr: str
    peak_bytes: int


def read(folder: Path, data: bytes | None, measured: bool = False, **fields: Any) -> Ended:
    source = None
    if data is not None:
        source = folder / "upload"
        source.write_bytes(data)
    request = IngestRequest(source=source and str(source), output=str(folder / "stored"), **fields)
    (folder / "request.json").write_text(request.model_dump_json())
    process = subprocess.Popen(
        [sys.executable, *(_MEASURED if measured else ("-m", "ingest")), str(folder / "request.json")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={"PYTHONPATH": os.getcwd(), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"},
    )
    assert process.stdout is not None
    assert process.stderr is not None
    with process.stdout, process.stderr:
        out, err = process.stdout.read(), process.stderr.read()
    process.wait()
    answer = None
    if process.returncode == 0:
        assert out.count(b"\n") == 1, "exactly one line"
        answer = IngestAnswer.model_validate_json(out)
        assert str(folder).encode() not in out
    peak = int((folder / "peak").read_text().split()[1]) * 1024 if measured else 0
    return Ended(process.returncode, answer, err.decode(), peak)


def code(ended: Ended) -> str:
    assert ended.answer is not None, ended.stderr
    assert ended.answer.error is not None
    return ended.answer.error.errors[0].code


def test_an_upload_becomes_one_line_and_one_file(tmp_path: Path) -> None:
    ended = read(tmp_path, csv("a,b,label", good_rows()))
    assert ended.answer is not None
    assert ended.answer.ok is not None
    assert ended.answer.ok.format == "csv"
    assert ended.answer.ok.dataset.facts == load(tmp_path / "stored").facts
    assert ended.stderr == ""


def test_the_digits_need_no_upload(tmp_path: Path) -> None:
    ended = read(tmp_path, None, builtin="digits")
    assert ended.answer is not None
    assert ended.answer.ok is not None
    assert len(load(tmp_path / "stored").x) == 1797


def test_a_refusal_is_one_line_and_no_file(tmp_path: Path) -> None:
    ended = read(tmp_path, csv("a,b,label", [*good_rows(), "1,2"]))
    assert code(ended) == "ragged_row"
    assert ended.answer is not None
    assert ended.answer.error is not None
    assert ended.answer.error.code == "invalid_data"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["request.json", "upload"]


def test_a_pickle_is_never_run(tmp_path: Path) -> None:
    canary = tmp_path / "was-run"
    evil = np.array([CreatesAFile(canary)] * N, dtype=object)
    assert code(read(tmp_path, npz(x=evil, y=Y))) == "object_array"
    assert code(read(tmp_path, npz(x=FLAT, y=evil))) == "object_array"
    assert not canary.exists()


def zeros_without_end(name: str, unpacked: int, *, says: int | None = None) -> bytes:
    """A ZIP of one member of `unpacked` zero bytes (a multiple of a MiB), made without packing them all."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(bytes(MIB)) + packer.flush(zlib.Z_FULL_FLUSH)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    stream = block * (unpacked // MIB) + packer.flush(zlib.Z_FINISH)
    size = unpacked if says is None else says
    entry = struct.pack("<HHHHHIII", 20, 0, 8, 0, 33, 0, len(stream), size)
    local = b"PK\x03\x04" + entry + struct.pack("<HH", len(name), 0) + name.encode() + stream
    central = b"PK\x01\x02" + struct.pack("<H", 20) + entry
    central += struct.pack("<HHHHHII", len(name), 0, 0, 0, 0, 0, 0) + name.encode()
    return local + central + struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 1, 1, len(central), len(local), 0)


def test_the_bomb_of_these_tests_is_a_real_one(tmp_path: Path) -> None:
    (tmp_path / "bomb.zip").write_bytes(zeros_without_end("x", 50 * MIB))
    total = 0
    with zipfile.ZipFile(tmp_path / "bomb.zip") as opened, opened.open("x") as member:
        member._expected_crc = None  # type: ignore[attr-defined]
        while block := member.read(MIB):
            total += len(block)
    assert total == 50 * MIB


@pytest.mark.parametrize("name", ["cat/x.png", "x.npy"])
@pytest.mark.parametrize("says", [None, 100, 200 * MIB])
def test_a_bomb_costs_no_memory_whatever_its_directory_says(tmp_path: Path, name: str, says: int | None) -> None:
    bomb = zeros_without_end(name, 3000 * MIB, says=says)
    assert len(bomb) < 4 * MIB
    limits = Limits(max_compression_ratio=10_000, max_expanded_bytes=1000 * MIB)
    ended = read(tmp_path, bomb, measured=True, limits=limits)
    codes = ("too_many_bytes", "corrupt_member", "corrupt_image", "unsupported_image", "one_class", "unclear_arrays")
    assert code(ended) in codes
    assert ended.peak_bytes < 250 * MIB, "the process itself takes about a hundred"


def test_a_text_that_a_parquet_file_repeats_is_never_unfolded(tmp_path: Path) -> None:
    once = pa.array(["x" * MIB])
    column = pa.DictionaryArray.from_arrays(pa.array(np.zeros(100_000, np.int32)), once)
    data = parquet({"text": column, "label": np.arange(100_000) % 2}, store_schema=False)
    assert len(data) < MIB
    ended = read(tmp_path, data, measured=True, limits=Limits(max_ingest_memory_bytes=800 * MIB))
    assert code(ended) == "bad_name"
    assert ended.peak_bytes < 400 * MIB


def test_memory_has_a_limit_of_its_own(tmp_path: Path) -> None:
    # Column order cannot be read in blocks, so these 400 MB would have to be held at once.
    x = np.asfortranarray(np.zeros((100, 1_000_000), np.float32))
    limits = Limits(
        max_ingest_memory_bytes=600 * MIB, max_compression_ratio=10_000, max_columns=2_000_000, max_rows=10**7
    )
    ended = read(tmp_path, npz(x=x, y=np.arange(100) % 2), measured=True, limits=limits)
    assert ended.status == EXIT_OUT_OF_MEMORY
    assert ended.peak_bytes < 600 * MIB


def test_cpu_time_has_a_limit_of_its_own(tmp_path: Path) -> None:
    rows = csv("1,red,no", good_rows(50_000))
    ended = read(tmp_path, b"a,b,label\n" + rows * 80, limits=Limits(max_ingest_seconds=0.001))
    assert ended.status == -24, "SIGXCPU"


def test_image_sizes_are_read_from_headers_alone(tmp_path: Path) -> None:
    ended = read(tmp_path, archive([*pets(), ("cat/huge.png", huge_png())]), measured=True)
    assert code(ended) == "too_many_pixels"
    assert ended.peak_bytes < 250 * MIB


def test_a_file_that_is_gone_is_our_fault_and_its_path_stays_here(tmp_path: Path) -> None:
    request = {"source": str(tmp_path / "gone"), "output": str(tmp_path / "stored")}
    (tmp_path / "request.json").write_text(json.dumps(request))
    command = [sys.executable, "-m", "ingest", str(tmp_path / "request.json")]
    done = subprocess.run(command, capture_output=True, check=True)
    answer = IngestAnswer.model_validate_json(done.stdout)
    assert answer.error is not None
    assert answer.error.code == "server_fault"
    assert str(tmp_path).encode() not in done.stdout


def test_an_output_that_cannot_be_written_is_our_fault(tmp_path: Path) -> None:
    (tmp_path / "upload").write_bytes(
        archive([(str(n), d) for n, d in pets()] + [("cat/9.png", image(pixels(6, 5, 3)))])
    )
    request = {"source": str(tmp_path / "upload"), "output": str(tmp_path / "no" / "stored")}
    (tmp_path / "request.json").write_text(json.dumps(request))
    command = [sys.executable, "-m", "ingest", str(tmp_path / "request.json")]
    answer = IngestAnswer.model_validate_json(subprocess.run(command, capture_output=True, check=True).stdout)
    assert answer.error is not None
    assert answer.error.code == "server_fault"


@pytest.mark.parametrize("body", ["", "{}", '{"output": "x"}', '{"builtin": "digits", "output": "x", "secret": 1}'])
def test_a_request_that_is_none_is_no_answer(tmp_path: Path, body: str) -> None:
    (tmp_path / "request.json").write_text(body)
    command = [sys.executable, "-m", "ingest", str(tmp_path / "request.json")]
    done = subprocess.run(command, capture_output=True, cwd=tmp_path, env={"PYTHONPATH": os.getcwd()})
    assert done.returncode == 1
    assert done.stdout == b""
