"""Whatever the bytes of a safetensors file are, or a graph says of its data: tensors, or a refusal with its code."""

import json
import os
import struct
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import onnx
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from distill.teachers.onnx_folder import merged
from distill.teachers.tensors import read_safetensors
from stillhouse.spec.errors import InvalidData
from stillhouse.spec.limits import Limits
from tests.distill.teachers.making import archive
from tests.linear import elsewhere, linear

LARGE = os.environ.get("STILLHOUSE_FUZZ") == "large"
MANY = settings(
    max_examples=20_000 if LARGE else 200,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
_number = st.one_of(st.integers(-2, 40), st.sampled_from([2**31, 2**32, 2**63, 2**64 - 1, 2**64, 1.5, None, "4"]))
_entry = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from(["F32", "F64", "U8", "BF16", "I4", "OBJECT", "", 5]),
        "shape": st.lists(_number, max_size=4),
        "data_offsets": st.lists(_number, max_size=3),
    },
)
GOOD = save({"a": torch.ones(2, 3), "b": torch.zeros(4, dtype=torch.uint8)})


def read(folder: Path, data: bytes) -> None:
    (folder / "weights").write_bytes(data)
    try:
        state = read_safetensors(folder / "weights")
    except InvalidData as refusal:
        known = [(entry.pointer, entry.code) for entry in refusal.errors] == [("/file", "corrupt_tensors")]
    else:
        known = sum(tensor.nbytes for tensor in state.values()) <= len(data)
    assert known


@MANY
@given(
    header=st.dictionaries(st.sampled_from(["a", "b", "", "__metadata__", "\0"]), _entry), body=st.binary(max_size=40)
)
@example(header={"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, body=bytes(8))
def test_any_header(tmp_path: Path, header: dict[str, Any], body: bytes) -> None:
    text = json.dumps(header).encode()
    read(tmp_path, struct.pack("<Q", len(text)) + text + body)


@MANY
@given(data=st.binary(max_size=100))
def test_any_bytes(tmp_path: Path, data: bytes) -> None:
    read(tmp_path, data)


@MANY
@given(at=st.integers(0, len(GOOD) - 1), value=st.integers(0, 255), cut=st.integers(1, len(GOOD)))
def test_any_damage(tmp_path: Path, at: int, value: int, cut: int) -> None:
    bent = bytearray(GOOD)
    bent[at] = value
    read(tmp_path, bytes(bent[:cut]))


_size = st.one_of(st.integers(-2, 60).map(str), st.sampled_from(["", "1e3", "0x10", str(2**63), "9" * 30, " 4", "4\0"]))
_location = st.one_of(
    st.sampled_from(["w", "./w", "d/w", "m.onnx", "", ".", "..", "../w", "/w", "d", "C:w", "d\\w", "w\0"]), st.text()
)
DATA = bytes(range(1, 49))


@MANY
@given(
    says=st.fixed_dictionaries({}, optional={"location": _location, "offset": _size, "length": _size, "x": st.text()}),
    data=st.integers(0, 100),
)
@example(says={"location": "d/w", "offset": "0", "length": "48"}, data=48)
def test_any_place_of_a_tensor(tmp_path: Path, says: dict[str, str], data: int) -> None:
    content = (DATA * 3)[:data]
    graph = linear(change=partial(elsewhere, **says))
    (tmp_path / "zip").write_bytes(archive({"m.onnx": graph, "w": content, "d/w": content, "e/": b""}))
    with tempfile.TemporaryDirectory() as folder:
        try:
            found, _ = merged(tmp_path / "zip", Path(folder), Limits())
        except InvalidData as refusal:
            at, code = refusal.errors[0].pointer, refusal.errors[0].code
            assert at == "/file/tensors/w"
            assert code in ("external_data", "missing_member", "corrupt_tensors")
            return
    tensor = onnx.load_model_from_string(found).graph.initializer[0]
    offset = int(says.get("offset", "0"))
    assert tensor.raw_data == content[offset : offset + 48]
    assert len(tensor.raw_data) == 48
    assert not tensor.external_data
