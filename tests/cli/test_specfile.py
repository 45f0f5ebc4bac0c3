"""Reading a spec from a file: the traps of YAML, and where a mistake stands."""

import contextlib
import io
import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from stillhouse.cli.specfile import SpecFile, read_spec_file
from stillhouse.client.jobs import checked_spec
from stillhouse.spec.errors import InvalidSpec


def read(tmp_path: Path, text: str | bytes, name: str = "job.yaml") -> SpecFile:
    """What is read from a file with this text."""
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_spec_file(str(path))


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("1e-3", 0.001),
        ("1E5", 1e5),
        ("1.", 1.0),
        (".5", 0.5),
        ("-2.5e+1", -25.0),
        ("4", 4),
        ("+4", 4),
        ("010", 10),
        ("0x10", 16),
        ("0o10", 8),
        ("true", True),
        ("False", False),
        ("no", "no"),
        ("off", "off"),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("2026-01-01", "2026-01-01"),
        ("1e-", "1e-"),
        ("~", None),
        ("", None),
        ("'4'", "4"),
        (".inf", math.inf),
        ("-.Inf", -math.inf),
        ("ja", "ja"),
    ],
)
def test_scalars_mean_what_yaml_1_2_says(tmp_path: Path, written: str, value: Any) -> None:
    read_value = read(tmp_path, f"key: {written}\n").data["key"]
    assert read_value == value
    assert type(read_value) is type(value)


def test_nan_is_read_so_that_the_spec_can_refuse_it_by_name(tmp_path: Path) -> None:
    source = read(tmp_path, "temperature: .nan\n")
    assert math.isnan(source.data["temperature"])
    with pytest.raises(InvalidSpec) as caught:
        checked_spec(source.data)
    assert "/temperature" in [error.pointer for error in caught.value.errors]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "'a' is given twice"),
        ("a: {b: 1, b: 2}\n", 1, "'b' is given twice"),
        ("a:\n\tb: 1\n", 2, "tab"),
        ("a: b: c\n", 1, "not allowed here"),
        ("a: &x [1]\nb: *x\n", 2, "alias"),
        ("a: &a [*a]\n", 1, "alias"),
        ("a: !!python/object/apply:os.system ['true']\n", 1, "tag"),
        ("a: !!binary aGk=\n", 1, "tag"),
        ("? [1, 2]\n: 3\n", 1, "key"),
        ("a: 1\n---\nb: 2\n", 2, "document"),
        ("a: [1, 2\nb: 3\n", 2, "','"),
        ("student: {name: mlp\n", 2, "end"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_line(tmp_path: Path, text: str, line: int, words: str) -> None:
    with pytest.raises(InvalidSpec) as caught:
        read(tmp_path, text)
    assert f"job.yaml, line {line}, column" in caught.value.detail
    assert words in caught.value.detail


def test_a_billion_laughs_are_not_laughed(tmp_path: Path) -> None:
    lines = ["a0: &a0 [lol, lol]"] + [f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 60)]
    with pytest.raises(InvalidSpec, match="alias"):
        read(tmp_path, "\n".join(lines))


@pytest.mark.parametrize("name", ["job.yaml", "job.json"])
@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000])
def test_a_tower_of_brackets_is_refused(tmp_path: Path, text: str, name: str) -> None:
    with pytest.raises(InvalidSpec, match="nested too deeply"):
        read(tmp_path, text, name)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("# only a comment\n", "empty"),
        ("- 1\n", "must hold fields"),
        ("hello\n", "must hold fields"),
        (b"a: 1\nb: \xff\xfe\n", "line 2: this is not UTF-8"),
        (b"a: 1\nb: \x00\n", "characters"),
        ("x" * 1_100_000, "1 MiB"),
        ('name: "\\ud800"\n', "half a character"),
    ],
)
def test_what_is_no_spec_at_all_is_named(tmp_path: Path, text: str | bytes, words: str) -> None:
    with pytest.raises(InvalidSpec, match=words):
        read(tmp_path, text)


def test_json_is_read_as_json(tmp_path: Path) -> None:
    assert read(tmp_path, '{\n\t"a": [1e-3, true, null]\n}', "job.json").data == {"a": [0.001, True, None]}
    with pytest.raises(InvalidSpec, match="line 2, column 6"):
        read(tmp_path, '{\n"a": nope}', "job.json")
    with pytest.raises(InvalidSpec, match="'a' is given twice"):
        read(tmp_path, '{"a": 1, "a": 2}', "job.json")


@pytest.mark.parametrize("text", ['{"temperature": 4}', "temperature: 4\n"])
def test_a_dash_reads_standard_input(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    source = read_spec_file("-")
    assert source.data == {"temperature": 4}
    assert source.name == "stdin"


def test_a_mark_at_the_beginning_of_the_file_does_no_harm(tmp_path: Path) -> None:
    assert read(tmp_path, b"\xef\xbb\xbfa: 1\n").data == {"a": 1}


def test_every_field_knows_its_line(tmp_path: Path) -> None:
    source = read(tmp_path, "teacher:\n  train:\n    epochs: 3\nstudent:\n  hidden:\n    - 8\n    - 9\na/b~c: 1\n")
    assert source.line("/teacher/train/epochs") == 3
    assert source.line("/student/hidden/1") == 7
    assert source.line("/a~1b~0c") == 8
    # A field that is missing is looked for where it should be.
    assert source.line("/student/name") == 4
    assert source.line("/dataset") == 0
    assert source.place("/student/hidden/1").endswith("job.yaml:7 /student/hidden/1")


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@settings(deadline=None)  # no test of ours judges a time
@given(st.dictionaries(st.text(min_size=1, max_size=8), values, min_size=1, max_size=4))
def test_what_json_says_is_read_the_same_from_a_yaml_file(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "same.yaml"
    path.write_text(json.dumps(data))
    assert read_spec_file(str(path)).data == data


@settings(deadline=None)  # no test of ours judges a time
@given(st.binary(max_size=200))
def test_no_file_can_do_more_than_be_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(data)
    with contextlib.suppress(InvalidSpec):
        assert isinstance(read_spec_file(str(path)).data, dict)


def test_the_loader_of_everybody_else_is_left_as_it_was() -> None:
    assert yaml.safe_load("a: no\nb: &x 1\nc: *x") == {"a": False, "b": 1, "c": 1}
