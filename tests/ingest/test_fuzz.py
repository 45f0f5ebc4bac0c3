"""Whatever the bytes are: a stored dataset or a clean refusal, never anything else."""

import contextlib
import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ingest.run import run
from stillhouse.spec.errors import InvalidData, TooLarge, UnsupportedMedia
from stillhouse.spec.limits import Limits
from stillhouse.spec.upload import IngestOptions, IngestRequest
from tests.ingest.making import archive, csv, good_objects, good_rows, image, jsonl, npz, parquet, pets, pixels
from tests.ingest.test_npz import member

# Small, so that a hostile claim costs the test no time.
LIMITS = Limits(max_rows=2000, max_columns=200, max_expanded_bytes=10**6, max_image_pixels=10**5, max_classes=50)
_TIMES = 100 if os.environ.get("STILLHOUSE_FUZZ") == "large" else 1  # `make fuzz`
MANY = settings(max_examples=150 * _TIMES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

Y = np.arange(24) % 2
SEEDS = {
    "csv": csv("a,b,label", good_rows(24)),
    "jsonl": jsonl([*good_objects(23), {"a": None, "é": True, "label": "yes", "b": "\\"}]),
    "parquet": parquet({"a": list(range(24)), "b": [f"v{i % 3}" for i in range(24)], "label": Y}),
    "npz": npz(x=pixels(24, 4, 4), y=Y, classes=np.array(["no", "yes"])),
    "zip": archive([*pets(4), *((f"cow/{i}.jpg", image(pixels(9, 9, 3, seed=i), "JPEG")) for i in range(4))]),
}


def read(folder: Path, data: bytes, *, format: Any = "auto", **options: object) -> None:
    (folder / "upload").write_bytes(data)
    request = IngestRequest(
        source=str(folder / "upload"),
        output=str(folder / "stored"),
        format=format,
        limits=LIMITS,
        options=IngestOptions.model_validate(options),
    )
    (folder / "stored").unlink(missing_ok=True)
    refusal = None
    try:
        run(request)
    except (InvalidData, TooLarge, UnsupportedMedia) as error:
        refusal = error
    assert {path.name for path in folder.iterdir()} == ({"upload"} if refusal else {"upload", "stored"})
    if refusal is not None:
        assert refusal.errors, "a refusal names a place"
        refusal.problem().model_dump_json().encode("utf-8")


@MANY
@given(data=st.binary(max_size=400), drop=st.sampled_from(["reject", "drop"]))
def test_any_bytes(tmp_path: Path, data: bytes, drop: str) -> None:
    read(tmp_path, data, bad_rows=drop)


_cell = st.sampled_from(
    ["1", "2.5", "-3e4", "", "x", "y", "nan", "1e999", '"a"', '"', '""', '"a,b"', "é", "\r", "\0", " "]
)


@MANY
@given(
    header=st.lists(st.sampled_from(["a", "b", "c", "label", "", "a b", '"q"', "1"]), min_size=1, max_size=4),
    rows=st.lists(st.lists(_cell, min_size=1, max_size=4), max_size=30),
    separator=st.sampled_from(",;\t"),
    end=st.sampled_from(["\n", "\r\n"]),
    drop=st.sampled_from(["reject", "drop"]),
)
@example(header=["a", "label"], rows=[["\0", "1"]], separator=",", end="\n", drop="drop")
def test_any_text_that_looks_like_a_table(
    tmp_path: Path, header: list[str], rows: list[list[str]], separator: str, end: str, drop: str
) -> None:
    text = end.join(separator.join(line) for line in [header, *rows])
    read(tmp_path, text.encode(), bad_rows=drop)


_json_cell = st.one_of(
    st.sampled_from(["1", "-2.5e3", "1e999", "-0", "NaN", "-Infinity", "null", "true", "false", '""', '"x"', '" 3 "']),
    st.sampled_from(
        ['"\\ud800"', '"\\u0000"', '"\\q"', "01", "+1", "{}", '{"a": 1}', "[]", "[[", "'x'", "", "\r", "\0"]
    ),
    st.recursive(st.none() | st.booleans() | st.floats() | st.text(max_size=4), st.lists, max_leaves=4).map(json.dumps),
)
_json_key = st.sampled_from(['"a"', '"b"', '"label"', '"label"', '""', '"\\udc00"', '"\\u202e"', "a", "1"])
_json_line = st.one_of(
    st.lists(st.tuples(_json_key, _json_cell), max_size=4).map(
        lambda cells: "{" + ",".join(map(":".join, cells)) + "}"
    ),
    st.sampled_from(["", " ", "[1]", "3", "{", '{"a"', "\ufeff{}", "{}{}", "{},", "[" * 3000, '{"a":' * 3000]),
)


@MANY
@given(
    lines=st.lists(_json_line, min_size=1, max_size=20),
    good=st.sampled_from([0, 12]),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    options=st.fixed_dictionaries(
        {"bad_rows": st.sampled_from(["reject", "drop"]), "unlabelled": st.sampled_from(["reject", "keep"])},
        optional={"ignore": st.just(["b"]), "label": st.just("a"), "split_column": st.just("b")},
    ),
)
@example(lines=["{}"], good=0, end="\n", options={})
@example(lines=['{"label":"\\ud800","a":"\\udc00"}'], good=12, end="\n", options={"bad_rows": "drop"})
def test_any_text_that_looks_like_json_lines(
    tmp_path: Path, lines: list[str], good: int, end: str, options: dict[str, Any]
) -> None:
    objects = [json.dumps({"a": i % 3, "label": i % 2, "b": ["train", "test", "val"][i % 3]}) for i in range(good)]
    with contextlib.suppress(ValidationError):  # options that contradict each other are refused before any file
        read(tmp_path, end.join([*objects, *lines]).encode(), format="jsonl" if good else "auto", **options)


def _mutated(data: bytes, edits: list[tuple[int, bytes]], cut: float) -> bytes:
    out = bytearray(data)
    for at, new in edits:
        out[at % len(out) : at % len(out) + len(new)] = new
    return bytes(out[: max(1, round(len(out) * cut))])


_edits = st.lists(
    st.tuples(
        st.integers(0, 10**6),
        st.one_of(
            st.binary(min_size=1, max_size=1),
            st.binary(min_size=2, max_size=8),
            st.sampled_from([b"\xff\xff\xff\xff", b"\0\0\0\0", struct.pack("<Q", 2**63), struct.pack("<I", 2**31)]),
        ),
    ),
    min_size=1,
    max_size=6,
)
_cut = st.one_of(st.just(1.0), st.floats(0.01, 1.0))


@pytest.mark.parametrize("kind", SEEDS)
@settings(MANY, max_examples=200 * _TIMES)
@given(edits=_edits, cut=_cut, drop=st.sampled_from(["reject", "drop"]))
def test_any_damage_to_a_valid_upload(
    tmp_path: Path, kind: str, edits: list[tuple[int, bytes]], cut: float, drop: str
) -> None:
    read(tmp_path, _mutated(SEEDS[kind], edits, cut), bad_rows=drop)


@MANY
@given(
    names=st.lists(st.text("ab./\\:é\n", min_size=1, max_size=12), max_size=6, unique=True),
    edits=_edits,
    damaged=st.booleans(),
)
def test_any_names_and_images_in_an_archive(
    tmp_path: Path, names: list[str], edits: list[tuple[int, bytes]], damaged: bool
) -> None:
    png = image(pixels(5, 5))
    data = _mutated(png, edits, 1.0) if damaged else png
    read(tmp_path, archive([*pets(4), *((name, data) for name in names)]), bad_rows="drop")


@MANY
@given(
    shape=st.one_of(st.text("0123456789(), -LTrue", max_size=20), st.tuples(*[st.integers(-1, 70)] * 2).map(str)),
    dtype=st.one_of(st.sampled_from(["<f4", "|u1", "<U3", "|O", "|S0", "<M8[s]", "|b1", "<c8"]), st.text(max_size=6)),
    fortran=st.booleans(),
    size=st.sampled_from([0, 1, 24, 96, 240, 960]),
)
def test_any_header_of_an_array(tmp_path: Path, shape: str, dtype: str, fortran: bool, size: int) -> None:
    y = member("(24,)", "|u1", bytes(Y.astype(np.uint8)))
    try:
        x = member(shape, dtype, bytes(size), fortran)
    except UnicodeEncodeError:  # a lone surrogate cannot even be written
        return
    read(tmp_path, archive([("x.npy", x), ("y.npy", y)]))
