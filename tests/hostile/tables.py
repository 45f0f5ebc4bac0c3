"""Hostile CSV, JSON lines and Parquet."""

import io
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.hostile.case import Case, uploads
from tests.ingest.making import csv, good_objects, good_rows, jsonl, parquet

N = 60
COUNT = list(range(N))
LABEL = [f"c{i % 2}" for i in COUNT]
HEADER = "a,b,label"


def table(*more: str, header: str = HEADER) -> bytes:
    return csv(header, [*good_rows(), *more])


def lines(*more: str) -> bytes:
    return jsonl(good_objects()) + "\n".join(more).encode()


def wide(columns: int) -> bytes:
    names = ",".join(f"{i:x}" for i in range(columns))
    return f"{names},label\n{'1,' * columns}x\n".encode()


def formulas() -> bytes:
    """Cells that spreadsheets run; here they are text."""
    evil = ("=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(1+1)", "=HYPERLINK(1)")
    return csv("a,b,label", [f"{i},{evil[i % 5]},{'=1+1' if i % 2 else '@x'}" for i in range(40)])


def split_by(words: list[str]) -> bytes:
    return csv("a,split,label", [f"{i},{words[i % len(words)]},{'x' if i % 2 else 'y'}" for i in range(30)])


def bomb() -> bytes:
    """Ten million equal numbers: a few kilobytes of Parquet, 80 MB of memory."""
    count = 10_000_000
    columns = {"a": pa.array(np.zeros(count)), "label": pa.array(np.zeros(count, np.int8))}
    return parquet(columns, compression="zstd")


def long_texts() -> bytes:
    """One text of 30 MB, named by a dictionary."""
    column = pa.DictionaryArray.from_arrays(pa.array([0] * N, pa.int32()), pa.array(["x" * 30_000_000]))
    return parquet({"a": COUNT, "b": column, "label": LABEL}, compression="zstd")


def nested(depth: int) -> bytes:
    kind: pa.DataType = pa.int64()
    value: Any = 1
    for _ in range(depth):
        kind, value = pa.list_(kind), [value]
    return parquet({"a": COUNT, "deep": pa.array([value] * N, kind), "label": LABEL})


def with_metadata() -> bytes:
    made = pa.table({"a": COUNT, "label": LABEL}).replace_schema_metadata(
        {"pandas": '{"index_columns": [{"kind": "range", "start": 1e999}]', "ARROW:schema": "AAAA", "\0": "\xff"}
    )
    out = io.BytesIO()
    pq.write_table(made, out, store_schema=False)
    return out.getvalue()


def patched_footer(length: int) -> bytes:
    data = bytearray(parquet({"a": COUNT, "label": LABEL}))
    data[-8:-4] = length.to_bytes(4, "little")
    return bytes(data)


def flipped(share: float) -> bytes:
    data = bytearray(parquet({"a": COUNT, "label": LABEL}))
    data[int(len(data) * share)] ^= 0xFF
    return bytes(data)


def cut(share: float) -> bytes:
    data = parquet({"a": COUNT, "label": LABEL})
    return data[: int(len(data) * share)]


def huge(value: float) -> bytes:
    return parquet({"a": [*COUNT[1:], value], "label": LABEL})


_ROWS: list[Any] = [
    ("nothing", bytes, "invalid_data/empty_file", "/file"),
    ("line breaks alone", lambda: b"\n" * 1000, "invalid_data/empty_file", "/file"),
    ("a byte order mark alone", lambda: b"\xef\xbb\xbf", "invalid_data/empty_file", "/file"),
    ("a header alone", lambda: b"a,b,label\n", "invalid_data/no_rows", "/file"),
    ("a byte order mark before a table", lambda: b"\xef\xbb\xbf" + table(), "", ""),
    ("two byte order marks", lambda: b"\xef\xbb\xbf" * 2 + table(), "invalid_data/bad_name", "/file/columns/"),
    ("UTF-16", lambda: table().decode().encode("utf-16"), "invalid_data/not_utf8", "/file"),
    ("UTF-16 without a mark", lambda: table().decode().encode("utf-16-le"), "invalid_data/nul_byte", "/file"),
    ("UTF-32", lambda: table().decode().encode("utf-32"), "invalid_data/not_utf8", "/file"),
    ("Latin-1", lambda: table("1.5,caf\xe9,yes").decode().encode("latin-1"), "invalid_data/not_utf8", "/file/rows/31"),
    ("a surrogate in UTF-8", lambda: table() + b"1.5,\xed\xa0\x80,yes\n", "invalid_data/not_utf8", "/file/rows/31"),
    ("an overlong NUL", lambda: table() + b"1.5,\xc0\x80,yes\n", "invalid_data/not_utf8", "/file/rows/31"),
    ("a NUL in a cell", lambda: table("1.5,\0,yes"), "invalid_data/nul_byte", "/file/rows/31"),
    ("NULs alone", lambda: bytes(5000), "invalid_data/nul_byte", "/file"),
    ("control characters in a category", lambda: table("1.5,\x1b[2J,yes"), "invalid_data/bad_name", "/file"),
    ("a class written right to left", lambda: table("1.5,red,\u202esey"), "invalid_data/bad_name", "/file"),
    ("a row too long", lambda: table("1.5,red,yes,more"), "invalid_data/ragged_row", "/file/rows/31"),
    ("a row too short", lambda: table("1.5,red"), "invalid_data/ragged_row", "/file/rows/31"),
    ("half of the rows ragged", lambda: table(*["1"] * 40), "invalid_data/ragged_row", "/file/rows/31", {"bad_rows": "drop"}),
    ("a quote without end", lambda: table('1.5,"red,yes'), "invalid_data/bad_quotes", "/file/rows/31"),
    ("text behind a quote", lambda: table('1.5,"red"x,yes'), "invalid_data/bad_quotes", "/file/rows/31"),
    ("old Macintosh line ends", lambda: table().replace(b"\n", b"\r"), "invalid_data/bad_line_ends", "/file"),
    ("a cell of 2 MB", lambda: table("1.5," + "x" * 2_000_000 + ",yes"), "invalid_data/bad_name", "/file"),
    ("a quoted cell of 2 MB with line breaks", lambda: table('1.5,"' + "x\n" * 1_000_000 + '",yes'), "invalid_data/bad_name", "/file"),
    ("a million columns", lambda: wide(1_000_000), "too_large/too_many_columns", "/file"),
    ("a million commas", lambda: b"," * 1_000_000, "too_large/too_many_columns", "/file"),
    ("two columns of one name", lambda: table(header="a,a,label"), "invalid_data/duplicate_header", "/file/columns/a"),
    ("a column without a name", lambda: table(header="a,,label"), "invalid_data/empty_header", "/file"),
    ("one column", lambda: b"label\nx\ny\n", "invalid_data/one_column", "/file"),
    ("no label", lambda: table(header="a,b,c"), "invalid_data/no_label", "?label"),
    ("a label that is not there", lambda: table(), "invalid_data/no_such_column", "?label", {"label": "c"}),
    ("the only column that tells rows apart ignored", lambda: table(), "invalid_data/class_too_small", "/file/classes/no", {"ignore": "a"}),
    ("one class", lambda: csv("a,label", [f"{i},x" for i in range(30)]), "invalid_data/one_class", "/file"),
    ("a class with one row", lambda: table("99,red,perhaps"), "invalid_data/class_too_small", "/file/classes/perhaps"),
    ("all rows equal", lambda: csv("a,label", ["1,x", "1,y"] * 20), "invalid_data/class_too_small", "/file/classes/x"),
    ("classes that are measurements", lambda: csv("a,label", [f"{i},{i / 7}" for i in range(40)]), "invalid_data/fractional_labels", "/file"),
    ("NaN", lambda: table("nan,red,yes"), "invalid_data/not_finite", "/file/rows/31"),
    ("infinity", lambda: table("-inf,red,yes"), "invalid_data/not_finite", "/file/rows/31"),
    ("1e400", lambda: table("1e400,red,yes"), "invalid_data/not_finite", "/file/rows/31"),
    ("1e39, beyond 32-bit floats", lambda: table("1e39,red,yes"), "invalid_data/not_finite", "/file/rows/31"),
    ("an Arabic digit", lambda: table("٣,red,yes"), "invalid_data/not_a_number", "/file/rows/31"),
    ("a number with underscores", lambda: table("1_000,red,yes"), "invalid_data/not_a_number", "/file/rows/31"),
    ("a number of 100,000 digits", lambda: table("9" * 100_000 + ",red,yes"), "invalid_data/not_finite", "/file/rows/31"),
    ("10,000 categories", lambda: csv(HEADER, [f"{i},v{i},{'xy'[i % 2]}" for i in range(10_000)]), "invalid_data/too_many_categories", "/file/columns/b"),
    ("formulas", formulas, "", ""),
    ("splits of unknown names", lambda: split_by(["train", "test", "dev"]), "invalid_data/bad_split", "/file", {"split_column": "split"}),
    ("a split for nobody", lambda: split_by(["test"]), "invalid_data/no_train_split", "", {"split_column": "split"}),
    ("JSON lines", lambda: lines(), "", ""),
    ("a JSON array", lambda: b"[" + lines().replace(b"\n", b",") + b"{}]", "unsupported_media/unsupported_format", "/file"),
    ("JSON 100,000 levels deep", lambda: b"[" * 100_000, "unsupported_media/unsupported_format", "/file"),
    ("JSON lines said to be CSV", lambda: lines(), "unsupported_media/format_mismatch", "?format", {"format": "csv"}),
    ("a table said to be JSON lines", lambda: table(), "unsupported_media/format_mismatch", "?format", {"format": "jsonl"}),
    ("a JSON line 100,000 levels deep", lambda: lines('{"a": ' + "[" * 100_000), "invalid_data/nested_value", "/file/rows/31"),
    ("a JSON line of 100,000 objects in each other", lambda: lines('{"a":' * 100_000), "invalid_data/nested_value", "/file/rows/31"),
    ("a JSON line of a million lists", lambda: lines('{"a": [' + "[]," * 1_000_000 + "[]]}"), "invalid_data/nested_value", "/file/rows/31"),
    ("a JSON number of 100,000 digits", lambda: lines(f'{{"a": {"9" * 100_000}, "b": "red", "label": "yes"}}'), "invalid_data/not_finite", "/file/rows/31"),
    ("a JSON label of 100,000 digits", lambda: lines(f'{{"a": 1, "b": "red", "label": {"9" * 100_000}}}'), "invalid_data/bad_name", "/file/columns/label"),
    ("an exponent of 100 digits in JSON lines", lambda: lines(f'{{"a": 1e{"9" * 100}, "b": "red", "label": "yes"}}'), "invalid_data/not_finite", "/file/rows/31"),
    ("a JSON line of 20,000 columns", lambda: jsonl([{f"k{i}": i for i in range(20_000)}]), "too_large/too_many_columns", "/file"),
    ("a new column on each of 20,000 JSON lines", lambda: jsonl({f"k{i}": i} for i in range(20_000)), "too_large/too_many_columns", "/file"),
    ("a million empty objects of 9,000 columns", lambda: jsonl([{f"k{i}": i for i in range(9_000)} | {"y": 1}]) + b"{}\n" * 1_000_000, "too_large/", "/file"),
    ("a JSON key of 2 MB", lambda: lines(f'{{"{"k" * 2_000_000}": 1}}'), "invalid_data/bad_name", "/file/columns/"),
    ("the same JSON key 100,000 times", lambda: lines("{" + '"a": 1, ' * 100_000 + '"a": 1}'), "invalid_data/duplicate_key", "/file/rows/31"),
    ("a JSON line of 9 MB", lambda: lines('{"a": "' + "x" * 9_000_000), "too_large/too_many_bytes", "/file"),
    ("9 MB of blanks before an object", lambda: lines(" " * 9_000_000 + "{}"), "too_large/too_many_bytes", "/file"),
    ("backslashes without end in a JSON line", lambda: lines('{"a": "' + "\\" * 1_000_001), "invalid_data/bad_json", "/file/rows/31"),
    ("half a character in a JSON text", lambda: lines('{"a": 1, "b": "\\ud800", "label": "yes"}'), "invalid_data/not_utf8", "/file/rows/31"),
    ("a NUL escaped in a JSON label", lambda: lines('{"a": 1, "b": "red", "label": "y\\u0000"}'), "invalid_data/bad_name", "/file/columns/label"),
    ("infinity in JSON lines", lambda: lines('{"a": -Infinity, "b": "red", "label": "yes"}'), "invalid_data/not_finite", "/file/rows/31"),
    ("NaN in JSON lines", lambda: lines('{"a": NaN, "b": "red", "label": "yes"}'), "invalid_data/empty_cell", "/file/rows/31"),
    ("a comment in JSON lines", lambda: lines("// all of it"), "invalid_data/bad_json", "/file/rows/31"),
    ("two byte order marks before JSON lines", lambda: b"\xef\xbb\xbf" * 2 + lines(), "unsupported_media/format_mismatch", "?format", {"format": "jsonl"}),
    ("half of the JSON lines broken", lambda: lines(*["{"] * 31), "invalid_data/bad_json", "/file/rows/31", {"bad_rows": "drop"}),
    ("__proto__ for a JSON column", lambda: jsonl({"__proto__": i, "label": i % 2} for i in range(40)), "", ""),
    ("a table said to be Parquet", lambda: table(), "unsupported_media/format_mismatch", "?format", {"format": "parquet"}),
    ("gzip", lambda: b"\x1f\x8b\x08" + bytes(100), "unsupported_media/unsupported_format", "/file"),
    ("Parquet of ten million rows", bomb, "too_large/too_many_rows", "/file"),
    ("a text of 30 MB in Parquet", long_texts, "invalid_data/bad_name", "/file"),
    ("a column nested 30 deep", lambda: nested(30), "invalid_data/unsupported_type", "/file/columns/deep"),
    ("wild metadata", with_metadata, "", ""),
    ("infinity in Parquet", lambda: huge(float("inf")), "invalid_data/not_finite", "/file/rows/60"),
    ("a footer of 4 GiB", lambda: patched_footer(2**32 - 1), "invalid_data/corrupt_parquet", "/file"),
    ("a footer of nothing", lambda: patched_footer(0), "invalid_data/corrupt_parquet", "/file"),
    ("a footer in the middle of itself", lambda: patched_footer(40), "invalid_data/corrupt_parquet", "/file"),
    ("marks of Parquet alone", lambda: b"PAR1PAR1", "invalid_data/corrupt_parquet", "/file"),
    ("marks around text", lambda: b"PAR1" + b"x" * 100 + b"PAR1", "invalid_data/corrupt_parquet", "/file"),
    ("a flipped byte in a page", lambda: flipped(0.02), "invalid_data/corrupt_parquet", "/file"),
    ("a flipped byte in the footer", lambda: flipped(0.9), "invalid_data/corrupt_parquet", "/file"),
    *((f"{share:.0%} of Parquet", lambda share=share: cut(share), "invalid_data/corrupt_parquet", "/file") for share in (0.3, 0.99)),
    ("Parquet without rows", lambda: parquet({"a": pa.array([], pa.int8()), "label": pa.array([], pa.string())}), "invalid_data/no_rows", "/file"),
]  # fmt: skip

CASES: list[Case] = uploads("/v1/datasets", _ROWS)
