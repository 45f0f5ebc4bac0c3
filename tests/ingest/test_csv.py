"""CSV text: what is read, and that every refusal names the row."""

import numpy as np
import pytest

from stillhouse.spec.errors import InvalidData, TooLarge
from stillhouse.spec.limits import Limits
from tests.ingest.conftest import Refuse, Store, first
from tests.ingest.making import csv, good_rows

HEADER = "a,b,label"


def test_a_table_of_numbers_and_text_becomes_float_inputs(store: Store) -> None:
    stored = store(csv(HEADER, good_rows(30)))
    assert stored.facts.task == "tabular-classification"
    assert stored.facts.classes == ("no", "yes")
    assert [(f.name, f.kind, f.categories) for f in stored.facts.features] == [
        ("a", "numeric", ()),
        ("b", "categorical", ("blue", "red")),
    ]
    np.testing.assert_array_equal(stored.x[:4], [[0.5, 1, 0], [1.5, 0, 1], [2.5, 0, 1], [3.5, 1, 0]])
    assert stored.labels[:3] == ["yes", "no", "yes"]
    assert (stored.report.rows_read, stored.report.rows_kept, stored.report.notes) == (30, 30, [])


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
def test_delimiter_line_end_and_bom_do_not_matter(store: Store, delimiter: str, end: str, bom: str) -> None:
    lines = [HEADER, *good_rows()]
    plain = store(csv(HEADER, good_rows()))
    text = bom + end.join(line.replace(",", delimiter) for line in lines)
    assert store(text.encode()).bytes == plain.bytes


def test_blank_lines_padding_and_quotes_do_not_matter(store: Store) -> None:
    rows = [f'  {a} , "{b}"'.replace(' "', '"') + f",{label} " for a, b, label in (r.split(",") for r in good_rows())]
    assert store(csv(" a , b,label", ["", *rows, "", ""])).bytes == store(csv(HEADER, good_rows())).bytes


def test_quoted_cells_may_hold_delimiters_quotes_and_line_ends(store: Store) -> None:
    rows = [f'{i},"x, ""y""\nz",{i % 2}' for i in range(10)] + [f"{i},plain,{i % 2}" for i in range(10, 20)]
    with pytest.raises(InvalidData, match="printable"):  # a category with a line end cannot be shown
        store(csv(HEADER, rows))
    rows = [row.replace("\n", " ") for row in rows]
    assert store(csv(HEADER, rows)).facts.features[1].categories == ("plain", 'x, "y" z')


def test_a_ragged_row_is_named(refuse: Refuse) -> None:
    error = refuse(csv(HEADER, [*good_rows(), "1,red", "2,red,no,more"]))
    assert [(e.pointer, e.code) for e in error.errors] == [
        ("/file/rows/31", "ragged_row"),
        ("/file/rows/32", "ragged_row"),
    ]
    assert "2 cells, the header 3" in error.errors[0].detail
    assert "2 of 32 rows" in error.detail


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ("x,red,no", "not_a_number"),
        ("1_0,red,no", "not_a_number"),
        ("0x1F,red,no", "not_a_number"),
        (",red,no", "empty_cell"),
        ("  ,red,no", "empty_cell"),
        ("nan,red,no", "not_finite"),
        ("-inf,red,no", "not_finite"),
        ("Infinity,red,no", "not_finite"),
        ("1e400,red,no", "not_finite"),
        ("1e39,red,no", "not_finite"),
        ("1,,no", "empty_cell"),
        ("1,red,", "empty_label"),
        ("1,red,NaN", "empty_label"),
    ],
)
def test_a_bad_cell_names_its_row_and_column(refuse: Refuse, row: str, code: str) -> None:
    error = refuse(csv(HEADER, [*good_rows(20), row, *good_rows(20)]))
    assert [(e.pointer, e.code) for e in error.errors] == [("/file/rows/21", code)]


def test_a_decimal_comma_is_explained(refuse: Refuse) -> None:
    rows = [row.replace(",", ";") for row in good_rows()]
    assert "need a point" in refuse(csv("a;b;label", [*rows, "1,5;red;no"])).errors[0].detail


def test_at_most_twenty_rows_are_named_and_all_are_counted(refuse: Refuse) -> None:
    error = refuse(csv(HEADER, [*good_rows(300), *["x,red,no"] * 120]))
    assert len(error.errors) == 20
    assert "120 of 420 rows" in error.detail


def test_bad_rows_can_be_dropped_and_are_listed_in_order(store: Store) -> None:
    rows = good_rows(40)
    rows[3], rows[7], rows[11] = "x,red,no", "1,red", "1,red,"
    stored = store(csv(HEADER, rows), bad_rows="drop")
    assert [row.row for row in stored.report.dropped] == ["4", "8", "12"]
    assert "'x', not a number" in stored.report.dropped[0].reason
    assert (stored.report.rows_read, stored.report.rows_kept, stored.report.rows_dropped) == (40, 37, 3)
    assert len(stored.x) == 37


def test_more_than_half_bad_rows_cannot_be_dropped(refuse: Refuse) -> None:
    error = refuse(csv(HEADER, [*good_rows(10), *["1,red"] * 11]), bad_rows="drop")
    assert "more than half" in error.detail


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ('1,"red,no', "not closed before the file ends"),
        ('1,"red"x,no', "behind a closing quote"),
        ('1,"red,no\n2,blue,yes\n3,"b",yes', "behind a closing quote"),
    ],
)
def test_a_quote_gone_wrong_names_the_row_it_opens_in(refuse: Refuse, row: str, words: str) -> None:
    error = refuse(csv(HEADER, [*good_rows(12), row, *good_rows(3)]) if "closed" not in words else _unfinished(row))
    assert first(error) == ("/file/rows/13", "bad_quotes")
    assert words in error.detail


def _unfinished(row: str) -> bytes:
    return csv(HEADER, [*good_rows(12), row, *(r for r in good_rows(3))])


def test_an_open_quote_before_megabytes_of_text_names_its_row(refuse: Refuse) -> None:
    error = refuse(csv(HEADER, [*good_rows(12), '1,"red,no', *["1,red,no"] * 1_100_000]))
    assert first(error) == ("/file/rows/13", "bad_quotes")


def test_a_byte_that_is_not_utf8_is_named_by_row_and_offset(refuse: Refuse) -> None:
    text = csv(HEADER, good_rows(12))
    error = refuse(text + "1,r\u00f6t,no\n".encode("latin-1"))
    assert first(error) == ("/file/rows/13", "not_utf8")
    assert f"Byte {len(text) + 3:,} of the file" in error.detail


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_utf16_is_refused_as_what_it_is(refuse: Refuse, encoding: str) -> None:
    error = refuse("\n".join([HEADER, *good_rows()]).encode(encoding))
    assert error.errors[0].code in ("not_utf8", "nul_byte")
    assert str(error.hint).startswith("Save the file as UTF-8")


def test_a_nul_byte_names_its_row(refuse: Refuse) -> None:
    assert first(refuse(csv(HEADER, [*good_rows(12), "1,r\0d,no"]))) == ("/file/rows/13", "nul_byte")


def test_bare_carriage_returns_are_named(refuse: Refuse) -> None:
    assert first(refuse("\r".join([HEADER, *good_rows()]).encode()))[1] == "bad_line_ends"
    assert first(refuse(csv(HEADER, [*good_rows(12), "1,r\rd,no"]))) == ("/file/rows/13", "bad_line_ends")


def test_a_line_without_end_is_refused_before_it_is_read(refuse: Refuse) -> None:
    error = refuse(csv(HEADER, good_rows(12)) + b"1" * 9_000_000)
    assert isinstance(error, TooLarge)
    assert first(error) == ("/file/rows/13", "line_too_long")


@pytest.mark.parametrize(
    ("header", "pointer", "code"),
    [
        ("a,a,label", "/file/columns/a", "duplicate_header"),
        ("a,,label", "/file/columns/2", "empty_header"),
        (",b,label", "/file/columns/1", "empty_header"),
        ("a,b/~c\x07,label", "/file/columns/b~1~0c\\x07", "bad_name"),
        ("1,2,3", "/file", "no_header"),
        ("label", "/file", "one_column"),
        ('a,"b,label', "/file", "bad_quotes"),
        ("a,b,c", "?label", "no_label"),
    ],
)
def test_a_wrong_header_is_refused(refuse: Refuse, header: str, pointer: str, code: str) -> None:
    assert first(refuse(csv(header, good_rows()))) == (pointer, code)


def test_a_million_columns_are_refused(refuse: Refuse) -> None:
    error = refuse(",".join(f"c{i}" for i in range(10**6)).encode())
    assert isinstance(error, TooLarge)
    assert first(error) == ("/file", "too_many_columns")


@pytest.mark.parametrize(
    ("data", "code"),
    [(b"", "empty_file"), (b"\n \n", "empty_file"), (b"a,b,label\n", "no_rows"), (b"a,b,label", "no_rows")],
)
def test_a_file_without_rows_is_refused(refuse: Refuse, data: bytes, code: str) -> None:
    assert first(refuse(data))[1] == code


def test_one_row_is_refused(refuse: Refuse) -> None:
    assert first(refuse(csv(HEADER, ["1,red,no"])))[1] == "one_class"


def test_rows_and_bytes_are_limited(refuse: Refuse) -> None:
    data = csv(HEADER, good_rows(40))
    for limits in (Limits(max_rows=39), Limits(max_expanded_bytes=40 * 3 * 4 - 1), Limits(max_upload_bytes=100)):
        assert isinstance(refuse(data, limits=limits), TooLarge)


def test_blocks_join_seamlessly(store: Store) -> None:
    rows = [f"{i},{'red' if i % 3 else 'blue'},{i % 2}" for i in range(40_000)]  # more than two blocks
    stored = store(csv(HEADER, rows))
    np.testing.assert_array_equal(stored.x[:, 0], np.arange(40_000))
    np.testing.assert_array_equal(stored.x[:, 2], np.arange(40_000) % 3 > 0)
    np.testing.assert_array_equal(stored.y, np.arange(40_000) % 2)


def test_rows_behind_the_first_block_keep_their_numbers(refuse: Refuse) -> None:
    rows = [f"{i},red,{i % 2}" for i in range(40_000)]
    rows[20_000], rows[20_001], rows[39_999] = "1", "x,red,1", ",red,1"
    assert [e.pointer for e in refuse(csv(HEADER, rows)).errors] == [
        f"/file/rows/{n}" for n in (20_001, 20_002, 40_000)
    ]
