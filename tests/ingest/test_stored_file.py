"""The stored file: readable by safetensors, the same for the same data, whole or not there."""

import hashlib
import json
import struct
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load

from ingest import stored_file
from ingest.run import run
from stillhouse.spec.upload import IngestOptions, IngestRequest
from tests.ingest.conftest import Store
from tests.ingest.conftest import load as read_back
from tests.ingest.making import archive, csv, good_rows, npz, parquet, pets, pixels


def test_the_digits_are_stored_as_they_are_known(tmp_path: Path) -> None:
    answer = run(IngestRequest(builtin="digits", output=str(tmp_path / "digits")))
    stored = read_back(tmp_path / "digits")
    assert answer.format == "builtin"
    assert stored.facts.shape == (1, 8, 8)
    assert stored.facts.classes == tuple("0123456789")
    assert stored.facts.rows == {"train": 1259, "validation": 269, "test": 269}
    assert (stored.x.max(), len(stored.x)) == (16, 1797)
    assert stored.report.class_counts["train"]["0"] == 124
    np.testing.assert_array_equal(np.bincount(stored.y), [178, 182, 177, 183, 181, 182, 181, 179, 174, 180])


@pytest.mark.parametrize("options", [{"label": "y"}, {"image_size": 4}])
def test_the_digits_take_no_options_of_files(tmp_path: Path, options: dict[str, object]) -> None:
    request = IngestRequest(
        builtin="digits", output=str(tmp_path / "digits"), options=IngestOptions.model_validate(options)
    )
    with pytest.raises(Exception, match="does nothing"):
        run(request)


@pytest.mark.parametrize(
    "data",
    [
        csv("a,b,label", good_rows(31)),
        parquet({"a": list(range(31)), "label": [i % 2 for i in range(31)]}),
        npz(x=pixels(31, 5, 3), y=np.arange(31) % 2),
        archive(pets(7)),
    ],
)
def test_the_same_upload_gives_the_same_bytes_and_safetensors_reads_them(store: Store, data: bytes) -> None:
    first, second = store(data), store(data)
    assert hashlib.sha256(first.bytes).digest() == hashlib.sha256(second.bytes).digest()
    tensors = load(first.bytes)
    assert set(tensors) == {"x", "y", "split"}
    np.testing.assert_array_equal(tensors["x"], first.x)
    assert store(data, seed=1).bytes != first.bytes


def test_the_header_leaves_no_gap_and_aligns_every_tensor(store: Store) -> None:
    data = store(npz(x=pixels(31, 5, 3), y=np.arange(31) % 2)).bytes
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    assert size % 8 == 0
    offsets = sorted(header[name]["data_offsets"] for name in ("x", "y", "split"))
    assert [start for start, _ in offsets] == [0, *(end for _, end in offsets[:-1])]
    assert offsets[-1][1] == len(data) - 8 - size


def test_an_older_file_survives_a_write_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "stored"
    output.write_bytes(b"older")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(stored_file.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        run(IngestRequest(builtin="digits", output=str(output)))
    assert output.read_bytes() == b"older"
    assert [path.name for path in tmp_path.iterdir()] == ["stored"]
