"""Data larger than memory: rows come from the disk as they are needed, and the process does not grow with the file."""

import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from distill.data import measure, read_dataset
from distill.mapped import Mapping, Rows
from stillhouse.spec import SPLITS, DataFacts, DataReport, StoredDataset
from stillhouse.spec.errors import JobFailure
from tests.distill.conftest import store
from tests.distill.test_processes import _python

MB = 2**20


def _store(path: Path, shape: tuple[int, ...], split: np.ndarray) -> Path:
    """A stored dataset whose x is a hole in the file: zeros that take no room on the disk."""
    rows, y = len(split), np.arange(len(split)) % 2
    facts = DataFacts(
        task="image-classification",
        shape=shape,
        dtype="uint8",
        classes=("a", "b"),
        rows={name: int((split == i).sum()) for i, name in enumerate(SPLITS)},
    )
    report = DataReport(rows_read=rows, rows_kept=rows, rows_dropped=0, class_counts={})
    nbytes = rows * int(np.prod(shape))
    entries = {
        "__metadata__": {"stillhouse": StoredDataset(facts=facts, report=report).model_dump_json()},
        "y": {"dtype": "I64", "shape": [rows], "data_offsets": [0, 8 * rows]},
        "x": {"dtype": "U8", "shape": [rows, *shape], "data_offsets": [8 * rows, 8 * rows + nbytes]},
        "split": {"dtype": "U8", "shape": [rows], "data_offsets": [8 * rows + nbytes, 9 * rows + nbytes]},
    }
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + y.astype("<i8").tobytes())
        file.seek(nbytes, os.SEEK_CUR)
        file.write(split.astype(np.uint8).tobytes())
    return path


def test_a_dataset_of_twice_the_memory_of_the_machine_opens_and_gives_its_rows(tmp_path: Path) -> None:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    rows = 2 * memory // (3 * MB) + 1
    data = read_dataset(_store(tmp_path / "huge", (3, 1024, 1024), np.arange(rows) % 3))
    assert data.x.nbytes > 2 * memory
    assert data.gather(torch.tensor([rows - 1, 0, rows // 2])).shape == (3, 3, 1024, 1024)


_SCRIPT = """
import json, re, sys
from dataclasses import replace
from pathlib import Path
import torch
from distill.augment import view
from distill.data import measure, read_dataset
from distill.evaluate import score
from distill.teacher_outputs import FolderShelf, Wish, outputs_of
from distill.teacher_outputs.layout import Layout
from distill.teacher import Teacher
from distill.reporter import Reporter
from distill.students import build
from distill.train import fit
from stillhouse.spec.training import Augmentation
from stillhouse.spec.students import Mlp
from tests.distill.test_train import STAGE

torch.set_num_threads(1)
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024  # MB

def work(path):
    data = read_dataset(Path(path))
    found = measure(data)
    net = build(Mlp(name="mlp", hidden=(2,)), data.facts, found.mean, found.std)
    reporter = Reporter(lambda event: None)
    teacher = Teacher(lambda: net, "mlp", 1, 1, "fingerprint")
    wish = Wish(teacher, STAGE, Layout(1, len(data.rows["train"]), 2))
    kept = outputs_of(wish, data, lambda: path, FolderShelf(Path(path).parent), reporter)
    kept.of(torch.tensor([0]), 0)
    score(net, data, "test")
    for augmentation in (Augmentation(), Augmentation(crop_padding=1)):
        fit(net, [replace(STAGE, epochs=1, batch_size=128, augmentation=augmentation)], data, None, reporter)

work(sys.argv[1])
before = peak()
work(sys.argv[2])
print(json.dumps([before, peak()]))
"""


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    def split(rows: int) -> np.ndarray:
        return np.repeat([0, 2], [rows // 4, rows - rows // 4])

    # 96 MB, below what is kept mapped, and ten times as much.
    small = _store(tmp_path / "small", (3, 64, 64), split(8_192))
    large = _store(tmp_path / "large", (3, 64, 64), split(81_920))
    before, after = _python(_SCRIPT, str(small), str(large))
    assert large.stat().st_size > 960 * MB
    assert after - before < 200


@pytest.fixture
def mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[np.ndarray, Rows]:
    """Odd rows, not aligned to pages, with every file treated as a large one."""
    monkeypatch.setattr("distill.mapped._KEPT_BYTES", 100_000)
    x = np.random.default_rng(0).integers(0, 256, (500, 3, 17, 19), dtype=np.uint8)
    save_file({"x": x, "y": np.zeros(3, np.int64)}, tmp_path / "f")
    mapping = Mapping(tmp_path / "f")
    entries, start = mapping.header()
    return x, Rows(mapping, *mapping.tensor(entries["x"], start))


@pytest.mark.parametrize("rows", [[0], [499], [3, 2, 2, 499, 0], list(range(500)), list(range(499, -1, -7)), []])
def test_gathered_rows_are_the_rows_in_any_order(mapped: Any, rows: list[int]) -> None:
    x, there = mapped
    for _ in range(3):  # pages were given back meanwhile
        found = there.gather(torch.tensor(rows, dtype=torch.int64))
        np.testing.assert_array_equal(found.numpy(), x[rows])


def test_tensors_of_every_type_come_as_they_were_saved(tmp_path: Path) -> None:
    saved = {
        "x": np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4),
        "y": np.array([5, -1, 2**40]),
        "split": np.array([0, 2, 1], np.uint8),
        "none": np.zeros((0, 7), np.float32),
    }
    save_file(saved, tmp_path / "f", {"a": "b"})
    mapping = Mapping(tmp_path / "f")
    entries, start = mapping.header()
    assert entries["__metadata__"] == {"a": "b"}
    for name, value in saved.items():
        tensor = mapping.tensor(entries[name], start)[0]
        assert tensor.shape == value.shape
        np.testing.assert_array_equal(tensor.numpy(), value)


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "U8", "shape": [4, 4], "data_offsets": [0, 1000]},
        {"dtype": "U8", "shape": [1000], "data_offsets": [0, 1000]},
        {"dtype": "U8", "shape": [-4, -4], "data_offsets": [0, 16]},
        {"dtype": "U8", "shape": [16], "data_offsets": [-16, 0]},
        {"dtype": "F32", "shape": [1], "data_offsets": [1, 5]},
        {"dtype": "BF16", "shape": [8], "data_offsets": [0, 16]},
        {"dtype": "U8", "shape": "16", "data_offsets": [0]},
        {"shape": [16], "data_offsets": [0, 16]},
        7,
    ],
)
def test_an_entry_that_does_not_fit_the_file_is_refused(tmp_path: Path, entry: Any) -> None:
    save_file({"x": np.zeros(16, np.uint8)}, tmp_path / "f")
    mapping = Mapping(tmp_path / "f")
    with pytest.raises(ValueError, match="entry of the header"):
        mapping.tensor(entry, mapping.header()[1])


@pytest.mark.parametrize(
    "content",
    [b"1234567", struct.pack("<Q", 2**60) + b"{}", struct.pack("<Q", 3) + b"[1]", struct.pack("<Q", 4) + b"\xff\xfe{}"],
    ids=["short", "long", "list", "bytes"],
)
def test_a_header_that_lies_makes_the_dataset_unusable(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "f").write_bytes(content)
    with pytest.raises(JobFailure) as failure:
        read_dataset(tmp_path / "f")
    assert failure.value.code == "dataset_unusable"


def test_a_nan_in_the_training_split_is_found_when_it_is_measured(tmp_path: Path) -> None:
    for value in (np.nan, np.inf):
        x = np.ones((6, 2), np.float32)
        x[1, 1] = value
        path = store(tmp_path / "t", x, np.array([0, 1] * 3), np.array([0, 0, 1, 1, 2, 2]), ("a", "b"))
        with pytest.raises(JobFailure, match="NaN"):
            measure(read_dataset(path))
