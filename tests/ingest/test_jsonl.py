"""JSON lines: what is read, that it is read as CSV is, and that every refusal names the row."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stillhouse.spec.errors import StillhouseError, TooLarge
from stillhouse.spec.limits import Limits
from tests.ingest.conftest import Refuse, Store, first
from tests.ingest.making import csv, good_objects, good_rows, jsonl

GOOD = jsonl(good_objects())
HEADER = "a,b,label"


def places(error: StillhouseError) -> list[tuple[str, str]]:
    return [(entry.pointer, entry.code) for entry in error.errors]


def test_objects_become_the_table_that_csv_becomes(store: Store) -> None:
    assert store(GOOD).bytes == store(csv(HEADER, good_rows())).bytes


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("last", [True, False])
def test_line_ends_mark_blank_lines_and_the_end_of_the_last_do_not_matter(
    store: Store, end: bytes, bom: bytes, last: bool
) -> None:
    data = bom + b"\n \n" + GOOD.replace(b"\n", b" \t\n\n", 5).replace(b"\n", end)
    assert store(data if last else data.rstrip()).bytes == store(GOOD).bytes


def test_a_cell_is_its_text_however_it_is_written(store: Store) -> None:
    rows = [{"a": str(row["a"]) + "0", "label": row["label"], "b": row["b"]} for row in good_objects()]
    columns = [sorted(feature.name for feature in store(data).facts.features) for data in (jsonl(rows), GOOD)]
    assert columns == [["a", "b"], ["a", "b"]]
    stored = store(jsonl(rows))
    assert [feature.kind for feature in stored.facts.features] == ["numeric", "categorical"]
    np.testing.assert_array_equal(stored.x[:, 0], [row["a"] for row in good_objects()])


def test_truth_values_are_categories_and_classes(store: Store) -> None:
    rows = [{"a": i, "b": i % 3 == 0, "label": i % 2 == 0} for i in range(40)]
    stored = store(jsonl(rows))
    assert stored.facts.features[1].categories == ("false", "true")
    assert stored.facts.classes == ("false", "true")
    assert stored.labels == [str(row["label"]).lower() for row in rows]


def test_escapes_are_read_in_keys_and_texts(store: Store) -> None:
    lines = [
        f'{{"\\u0061\\"b": {i}, "caf\\u00e9": "{["x", chr(0x1F600)][i % 2]}", "label": {i % 2}}}' for i in range(20)
    ]
    stored = store("\n".join(line.replace("\U0001f600", "\\ud83d\\ude00") for line in lines).encode())
    assert [feature.name for feature in stored.facts.features] == ['a"b', "café"]
    assert stored.facts.features[1].categories == ("x", "\U0001f600")


def test_columns_stand_in_the_order_in_which_they_turn_up_and_any_line_may_be_the_first(store: Store) -> None:
    rows: list[Any] = good_objects(40)
    del rows[0]["label"]
    rows[1] = {"label": "no", "b": "red", "a": 7}
    rows[39]["note"] = "late"
    stored = store(jsonl(rows), unlabelled="keep", ignore=("note",))
    assert [feature.name for feature in stored.facts.features] == ["a", "b"]
    assert stored.facts.unlabelled == 1
    np.testing.assert_array_equal(stored.x[1], [7, 0, 1])


@pytest.mark.parametrize("missing", ["null", "NaN", '""', '"  "', None])
@pytest.mark.parametrize(("column", "code"), [("a", "empty_cell"), ("b", "empty_cell"), ("label", "empty_label")])
def test_null_nan_and_a_key_left_out_are_empty_cells(
    refuse: Refuse, missing: str | None, column: str, code: str
) -> None:
    cells = {"a": "1", "b": '"red"', "label": '"no"', column: missing}
    line = ", ".join(f'"{name}": {cell}' for name, cell in cells.items() if cell is not None)
    error = refuse(GOOD + f"{{{line}}}\n".encode() + GOOD)
    assert places(error) == [("/file/rows/31", code)]
    assert f"column '{column}'" in error.errors[0].detail.lower()


@pytest.mark.parametrize("missing", [{"label": None}, {"label": ""}, {"label": float("nan")}, {}])
def test_rows_without_a_label_can_be_kept(store: Store, missing: dict[str, Any]) -> None:
    rows = [{"a": i} | (missing if i % 4 == 0 else {"label": "xy"[i % 3 % 2]}) for i in range(60)]
    stored = store(jsonl(rows), unlabelled="keep")
    assert stored.y.tolist().count(-1) == stored.facts.unlabelled == 15
    assert stored.facts.classes == ("x", "y")


def test_label_split_and_ignored_columns_are_those_that_are_named(store: Store) -> None:
    words = ("train", "val", "test")
    rows = [{"id": f"i{i}", "a": i, "part": words[i % 3], "kind": 10 - i % 2, "deep": [{}]} for i in range(60)]
    stored = store(jsonl(rows), label="kind", split_column="part", ignore=("id", "deep"))
    assert stored.facts.classes == ("9", "10")
    assert stored.splits == [{"val": "validation"}.get(words[i % 3], words[i % 3]) for i in range(60)]
    assert [feature.name for feature in stored.facts.features] == ["a"]


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ('{"a": 1, "b": "red" "label": "no"}', "bad_json", " at column 21."),
        ('{"a": 1, "b": "red", "label": "no"', "bad_json", " at column 35."),
        ('{"a": 1, "b": "red', "bad_json", " at column 15."),
        ("{'a': 1}", "bad_json", " at column 2."),
        ('{"a": 01}', "bad_json", " at column 8."),
        ('{"a": .5}', "bad_json", " at column 7."),
        ('{"a": 1}, ', "bad_json", " at column 9."),
        ('{"a": 1} {"a": 2}', "bad_json", "Line 62 is not JSON: extra data at column 10."),
        ('{"a": 1, "b": "r\td", "label": "no"}', "bad_json", "invalid control character at column 17."),
        ("a,b,label", "bad_json", " at column 1."),
        ("[1, 2]", "not_an_object", "Line 62"),
        ('"text"', "not_an_object", "Line 62"),
        ("3", "not_an_object", "Line 62"),
        ("NaN", "not_an_object", "Line 62"),
        ('{"a": 1, "b": "red", "label": "no", "a": 2}', "duplicate_key", "'a' more than once"),
        ('{"a": 1, "b": "red", "label": "no", "\\u0061": 1}', "duplicate_key", "'a' more than once"),
        ('{"a": [1], "b": "red", "label": "no"}', "nested_value", "Column 'a' is a list"),
        ('{"a": 1, "b": {"c": 1}, "label": "no"}', "nested_value", "Column 'b' is an object"),
        ('{"a": 1, "b": "red", "label": {}}', "nested_value", "Column 'label' is an object"),
        ('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested_value", "Line 62 nests deeper"),
        ('{"a": Infinity, "b": "red", "label": "no"}', "not_finite", "Column 'a'"),
        ('{"a": 1, "b": -Infinity, "label": "no"}', "not_finite", "Column 'b'"),
        ('{"a": 1e999, "b": "red", "label": "no"}', "not_finite", "Column 'a'"),
        ('{"a": 1e39, "b": "red", "label": "no"}', "not_finite", "Column 'a'"),
        ('{"a": ' + "9" * 100_000 + ', "b": "red", "label": "no"}', "not_finite", "Column 'a'"),
        ('{"a": "x", "b": "red", "label": "no"}', "not_a_number", "'x', not a number"),
        ('{"a": 1, "b": "\\ud800", "label": "no"}', "not_utf8", "Column 'b'"),
        ('{"a": 1, "b": "red", "label": "x\\udfffy"}', "not_utf8", "Column 'label'"),
    ],
    ids=lambda value: value[:40],
)
def test_a_line_that_is_no_row_is_named_or_dropped(
    store: Store, refuse: Refuse, line: str, code: str, words: str
) -> None:
    # Every line is followed by a blank one: rows and lines are not the same.
    good = GOOD.replace(b"\n", b"\n\n")
    data = b"\n" + good + line.encode() + b"\n" + good
    error = refuse(data)
    assert places(error) == [("/file/rows/31", code)]
    assert words in error.errors[0].detail
    assert "1 of 61 rows" in error.detail
    stored = store(data, bad_rows="drop")
    assert [row.row for row in stored.report.dropped] == ["31"]
    assert len(stored.x) == 60


def test_thousands_of_digits_are_one_whole_number_where_they_name_a_class(store: Store) -> None:
    rows = "".join(f'{{"a": {i}, "label": {"7" * 150 if i % 2 else "10"}}}\n' for i in range(30))
    assert store(rows.encode()).facts.classes == ("10", "7" * 150)


def test_more_than_half_of_the_lines_cannot_be_dropped(refuse: Refuse) -> None:
    error = refuse(GOOD + b"[]\n" * 31, bad_rows="drop")
    assert "31 of 61 rows" in error.detail
    assert "more than half" in error.detail


def test_one_document_over_many_lines_says_what_json_lines_are(refuse: Refuse) -> None:
    error = refuse(json.dumps(good_objects(), indent=1)[1:].encode())
    assert first(error) == ("/file/rows/1", "bad_json")
    error = refuse(b"{\n}\n" * 20)
    assert first(error) == ("/file/rows/1", "bad_json")
    assert str(error.hint).startswith("Write one JSON object on each line")


@pytest.mark.parametrize(
    ("data", "pointer", "code"),
    [
        (b"{}\n" * 30, "/file", "no_rows"),
        (b'{"a": 1}\n' * 30, "?label", "no_label"),
        (b'{"label": 1}\n' * 30, "/file", "no_features"),
        (b'{"": 1, "label": 1}\n' * 30, "/file/columns/1", "empty_header"),
        (b'{"a\\u0007": 1, "label": 1}\n', "/file/columns/a\\x07", "bad_name"),
        (b'{"\\ud800": 1, "label": 1}\n', "/file/columns/\\ud800", "bad_name"),
        (b'{"' + b"a" * 201 + b'": 1, "label": 1}\n', "/file/columns/", "bad_name"),
        (b'{"a": null, "label": "x"}\n' * 30, "/file/columns/a", "empty_column"),
    ],
)
def test_names_that_make_no_table_are_refused(refuse: Refuse, data: bytes, pointer: str, code: str) -> None:
    found = first(refuse(data))
    assert found[0].startswith(pointer)
    assert found[1] == code


def test_what_is_no_utf8_is_named_by_row_and_offset(refuse: Refuse) -> None:
    bad = '{"a": 1, "b": "r\u00f6t", "label": "no"}'.encode("latin-1")
    for mark in (b"", b"\xef\xbb\xbf"):
        error = refuse(mark + bad)
        assert first(error) == ("/file/rows/1", "not_utf8")
        assert f"Byte {len(mark) + 16} of the file" in error.detail
    error = refuse(GOOD + b"\n" + bad, bad_rows="drop")
    assert first(error) == ("/file/rows/31", "not_utf8")
    assert f"Byte {len(GOOD) + 17:,} of the file" in error.detail
    assert first(refuse(GOOD + b'{"a": "\0"}')) == ("/file/rows/31", "nul_byte")


def test_old_line_ends_are_named(refuse: Refuse) -> None:
    assert first(refuse(GOOD.replace(b"\n", b"\r"))) == ("/file/rows/1", "bad_line_ends")


def test_a_line_without_end_is_refused_before_it_is_read(refuse: Refuse) -> None:
    error = refuse(GOOD + b'{"a": "' + b"x" * 9_000_000)
    assert isinstance(error, TooLarge)
    assert first(error) == ("/file/rows/31", "line_too_long")


def test_rows_columns_and_cells_are_limited(refuse: Refuse) -> None:
    assert first(refuse(GOOD, limits=Limits(max_rows=29))) == ("/file", "too_many_rows")
    keys = jsonl({f"k{i}": i, "label": i % 2} for i in range(30))
    assert first(refuse(keys, limits=Limits(max_columns=29))) == ("/file", "too_many_columns")
    # The rows of a few bytes each would be filled up to as many cells as there are keys.
    sparse = keys + b"{}\n" * 10_000
    error = refuse(sparse, limits=Limits(max_expanded_bytes=10_030 * 30 * 4 - 1))
    assert isinstance(error, TooLarge)
    assert first(error) == ("/file", "too_many_bytes")


def test_blocks_join_seamlessly_and_keep_the_numbers_of_their_rows(store: Store, refuse: Refuse) -> None:
    rows: list[Any] = [{"a": i, "b": "red" if i % 3 else "blue", "label": i % 2} for i in range(40_000)]
    stored = store(jsonl(rows))
    np.testing.assert_array_equal(stored.x[:, 0], np.arange(40_000))
    np.testing.assert_array_equal(stored.x[:, 2], np.arange(40_000) % 3 > 0)
    rows[20_000], rows[20_001], rows[39_999] = [], rows[20_001] | {"a": "x"}, {}
    assert places(refuse(jsonl(rows))) == [
        ("/file/rows/20001", "not_an_object"),
        ("/file/rows/20002", "not_a_number"),
        ("/file/rows/40000", "empty_label"),
    ]


_cells = st.sampled_from(["1", "2.5", "-3e4", "007", "x", "y", "", "nan", "1e999", "a,b", 'q"q', "é", " 5 ", "true"])


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cells=st.lists(st.tuples(_cells, _cells, _cells), min_size=1, max_size=25),
    drop=st.sampled_from(["reject", "drop"]),
    unlabelled=st.sampled_from(["reject", "keep"]),
    good=st.sampled_from([0, 30]),
)
def test_any_table_is_taken_or_refused_as_in_csv(
    store: Store, cells: list[tuple[str, str, str]], drop: str, unlabelled: str, good: int
) -> None:
    rows = [*(tuple(row.split(",")) for row in good_rows(good)), *cells]
    lines = [",".join('"' + cell.replace('"', '""') + '"' for cell in row) for row in rows]
    objects = [dict(zip(("a", "b", "label"), row, strict=True)) for row in rows]
    outcomes = []
    for data in (csv(HEADER, lines), jsonl(objects)):
        try:
            outcomes.append(store(data, bad_rows=drop, unlabelled=unlabelled).bytes)
        except StillhouseError as error:
            outcomes.append((error.detail, error.hint, error.errors))
    assert outcomes[0] == outcomes[1]
