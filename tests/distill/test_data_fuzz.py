"""Whatever the bytes of a stored dataset are: a dataset that is whole, or a job that ends with its code."""

import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from distill.data import measure, read_dataset
from stillhouse.spec import SPLITS
from stillhouse.spec.errors import JobFailure
from tests.distill.conftest import store

MANY = settings(
    max_examples=20_000 if os.environ.get("STILLHOUSE_FUZZ") == "large" else 150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
Y = np.array([0, 1] * 6)
SPLIT = np.array([0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 2])


@pytest.fixture(params=["table", "images"])
def good(request: pytest.FixtureRequest, tmp_path: Path) -> bytes:
    made = np.random.default_rng(0)
    x = made.random((12, 3), np.float32) if request.param == "table" else made.integers(0, 255, (12, 1, 2, 2), np.uint8)
    return store(tmp_path / "good", x, Y, SPLIT, ("a", "b")).read_bytes()


def read(folder: Path, data: bytes) -> None:
    (folder / "stored").write_bytes(data)
    refusal = dataset = None
    try:
        dataset = read_dataset(folder / "stored")
        measure(dataset)
    except JobFailure as failure:
        refusal = failure
    if refusal is not None or dataset is None:
        assert refusal is not None
        assert refusal.code == "dataset_unusable"
        assert str(folder) not in refusal.detail
        return
    assert dataset.x.shape == (len(dataset.y), *dataset.facts.shape)
    assert {name: len(dataset.rows[name]) for name in SPLITS} == {n: dataset.facts.rows.get(n, 0) for n in SPLITS}
    assert torch.isfinite(dataset.x.double()).all()
    assert int(dataset.y.max()) < len(dataset.facts.classes)


@MANY
@given(
    edits=st.lists(st.tuples(st.integers(0, 10**6), st.binary(min_size=1, max_size=8)), max_size=4),
    cut=st.one_of(st.just(1.0), st.floats(0, 1)),
)
def test_any_damage(tmp_path: Path, good: bytes, edits: list[tuple[int, bytes]], cut: float) -> None:
    bent = bytearray(good)
    for at, new in edits:
        bent[at % len(bent) : at % len(bent) + len(new)] = new
    read(tmp_path, bytes(bent[: round(len(bent) * cut)]))


_number = st.one_of(st.integers(-2, 150), st.sampled_from([2**31, 2**62, 2**63, 2**64, 1.5, None, "4", True, []]))
_entry = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from(["F32", "F64", "U8", "I64", "BF16", "OBJECT", "", 5, None]),
        "shape": st.one_of(st.lists(_number, max_size=4), _number),
        "data_offsets": st.one_of(st.lists(_number, max_size=3), _number),
    },
)


@MANY
@given(
    changes=st.dictionaries(st.sampled_from(["x", "y", "split", "z", ""]), st.one_of(_entry, _number), max_size=3),
    facts=st.dictionaries(
        st.sampled_from(["shape", "classes", "rows", "unlabelled", "dtype", "task"]),
        st.one_of(_number, st.lists(_number, max_size=3), st.dictionaries(st.sampled_from(SPLITS), _number)),
        max_size=2,
    ),
    left_out=st.one_of(st.just([]), st.lists(st.sampled_from(["x", "y", "split", "__metadata__"]), max_size=2)),
)
@example(changes={}, facts={"rows": {"train": 0}}, left_out=[])
@example(changes={"x": {"shape": [0, 3], "data_offsets": [0, 0]}}, facts={}, left_out=[])
@example(changes={"__metadata__": {"stillhouse": 5}}, facts={}, left_out=[])
@example(changes={}, facts={}, left_out=["split"])
@example(changes={}, facts={}, left_out=["__metadata__"])
@example(changes={"y": None}, facts={}, left_out=[])
def test_any_header(
    tmp_path: Path, good: bytes, changes: dict[str, Any], facts: dict[str, Any], left_out: list[str]
) -> None:
    (length,) = struct.unpack("<Q", good[:8])
    header = json.loads(good[8 : 8 + length])
    said = json.loads(header["__metadata__"]["stillhouse"])
    said["facts"] |= facts
    header["__metadata__"]["stillhouse"] = json.dumps(said)
    for name, change in changes.items():
        old = header.get(name)
        header[name] = old | change if isinstance(old, dict) and isinstance(change, dict) else change
    header = {name: entry for name, entry in header.items() if name not in left_out}
    text = json.dumps(header).encode()
    read(tmp_path, struct.pack("<Q", len(text)) + text + good[8 + length :])


@MANY
@given(data=st.binary(max_size=120))
def test_any_bytes(tmp_path: Path, data: bytes) -> None:
    read(tmp_path, data)
