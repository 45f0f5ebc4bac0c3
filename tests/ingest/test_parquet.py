"""Parquet tables: types, claims of the footer, broken pages."""

import io
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as pe
import pytest

from stillhouse.spec.errors import TooLarge, UnsupportedMedia
from stillhouse.spec.limits import Limits
from tests.ingest.conftest import Refuse, Store, first
from tests.ingest.making import csv, parquet

N = 60
LABEL = [f"c{i % 2}" for i in range(N)]
COUNT = list(range(N))


def test_numbers_text_and_truth_values_become_inputs(store: Store) -> None:
    columns: dict[str, Any] = {
        "int": pa.array(COUNT, pa.int16()),
        "unsigned": pa.array(COUNT, pa.uint64()),
        "half": pa.array(np.arange(N, dtype=np.float16)),
        "double": [i / 7 for i in COUNT],
        "truth": [i % 3 == 0 for i in COUNT],
        "text": [f" v{i % 2}" for i in COUNT],
        "large": pa.array([f"v{i % 2}" for i in COUNT], pa.large_string()),
        "view": pa.array([f"v{i % 2}" for i in COUNT], pa.string_view()),
        "dictionary": pa.array([f"v{i % 2}" for i in COUNT]).dictionary_encode(),
        "a.b": COUNT,
        "label": LABEL,
    }
    stored = store(parquet(columns))
    widths = {feature.name: feature.width for feature in stored.facts.features}
    assert widths == {
        **dict.fromkeys(("int", "unsigned", "half", "double", "a.b"), 1),
        **dict.fromkeys(("truth", "text", "large", "view", "dictionary"), 2),
    }
    assert stored.facts.features[4].categories == ("false", "true")
    assert stored.facts.features[5].categories == ("v0", "v1")
    expected = [5, 5, 5, np.float32(5 / 7), 1, 0, *([0, 1] * 4), 5]
    np.testing.assert_array_equal(stored.x[5], np.array(expected, np.float32))


@pytest.mark.parametrize("compression", ["none", "snappy", "gzip", "zstd", "brotli", "lz4"])
def test_every_usual_compression_is_read(store: Store, compression: str) -> None:
    columns = {"a": COUNT, "label": LABEL}
    plain = store(csv("a,label", [f"{a},{label}" for a, label in zip(COUNT, LABEL, strict=True)]))
    assert store(parquet(columns, compression=compression)).bytes == plain.bytes


@pytest.mark.parametrize(
    "label",
    [[i % 2 for i in COUNT], [float(i % 2) for i in COUNT], pa.array([str(i % 2) for i in COUNT]).dictionary_encode()],
)
def test_labels_of_any_type_become_the_same_classes(store: Store, label: Any) -> None:
    assert store(parquet({"a": COUNT, "label": label})).facts.classes == ("0", "1")


def test_fractions_are_no_labels(refuse: Refuse) -> None:
    error = refuse(parquet({"a": COUNT, "label": [i / 4 for i in COUNT]}))
    assert first(error) == ("/file/columns/label", "fractional_labels")


def test_nulls_and_nan_are_bad_rows(refuse: Refuse, store: Store) -> None:
    a = [None if i == 3 else float("nan") if i == 4 else float("inf") if i == 5 else float(i) for i in COUNT]
    b = [None if i == 6 else f"v{i % 2}" for i in COUNT]
    label = [None if i == 7 else f"c{i % 2}" for i in COUNT]
    data = parquet({"a": a, "b": b, "label": label})
    assert [(e.pointer, e.code) for e in refuse(data).errors] == [
        ("/file/rows/4", "empty_cell"),
        ("/file/rows/5", "not_finite"),
        ("/file/rows/6", "not_finite"),
        ("/file/rows/7", "empty_cell"),
        ("/file/rows/8", "empty_label"),
    ]
    stored = store(data, bad_rows="drop")
    np.testing.assert_array_equal(stored.x[:, 0], [i for i in COUNT if i not in range(3, 8)])


def test_other_types_are_refused_by_name_and_can_be_ignored(refuse: Refuse, store: Store) -> None:
    columns = {
        "a": COUNT,
        "when": pa.array(COUNT, pa.timestamp("s")),
        "price": pa.array(COUNT, pa.decimal128(5, 2)),
        "list": [[i] for i in COUNT],
        "struct": [{"x": i} for i in COUNT],
        "blob": [b"x"] * N,
        "nothing": pa.nulls(N),
        "label": LABEL,
    }
    others = ("when", "price", "list", "struct", "blob", "nothing")
    error = refuse(parquet(columns))
    assert [(e.pointer, e.code) for e in error.errors] == [(f"/file/columns/{n}", "unsupported_type") for n in others]
    assert "timestamp" in error.errors[0].detail
    assert [f.name for f in store(parquet(columns), ignore=others).facts.features] == ["a"]


def test_the_index_pandas_writes_is_left_out(store: Store) -> None:
    stored = store(parquet({"a": COUNT, "label": LABEL, "__index_level_0__": COUNT}))
    assert [f.name for f in stored.facts.features] == ["a"]
    assert any("index that pandas wrote" in note for note in stored.report.notes)


def test_row_groups_join_seamlessly(store: Store) -> None:
    columns = {"a": range(5000), "b": [f"v{i % 7}" for i in range(5000)], "label": [i % 2 for i in range(5000)]}
    stored = store(parquet({k: list(v) for k, v in columns.items()}, row_group_size=333))
    np.testing.assert_array_equal(stored.x[:, 0], np.arange(5000))
    np.testing.assert_array_equal(stored.x[:, 1:].argmax(axis=1), np.arange(5000) % 7)


def test_what_the_footer_claims_is_limited_before_reading(refuse: Refuse) -> None:
    data = parquet({"a": list(range(10_000)), "label": [i % 2 for i in range(10_000)]})
    for limits in (Limits(max_rows=9999), Limits(max_columns=1), Limits(max_expanded_bytes=1000)):
        error = refuse(data, limits=limits)
        assert isinstance(error, TooLarge)
        assert "claims" in error.detail or "2 columns" in error.detail


def test_unused_entries_of_a_dictionary_are_no_categories(store: Store) -> None:
    texts = pa.array([f"v{i}" for i in range(5000)])
    column = pa.DictionaryArray.from_arrays(pa.array([4000 + i % 3 for i in COUNT], pa.int32()), texts)
    stored = store(parquet({"a": COUNT, "b": column, "label": LABEL}))
    assert stored.facts.features[1].categories == ("v4000", "v4001", "v4002")


@pytest.mark.parametrize("part", [i / 16 for i in range(1, 16)])
def test_a_truncated_file_is_refused(refuse: Refuse, part: float) -> None:
    data = parquet({"a": COUNT, "label": LABEL})
    assert first(refuse(data[: int(len(data) * part)])) == ("/file", "corrupt_parquet")


def test_an_encrypted_file_is_refused(refuse: Refuse) -> None:
    class Kms(pe.KmsClient):
        def __init__(self, _: Any) -> None:
            pe.KmsClient.__init__(self)

        def wrap_key(self, key: bytes, _: str) -> bytes:
            return key.hex().encode()

        def unwrap_key(self, key: bytes, _: str) -> bytes:
            return bytes.fromhex(key.decode())

    table = pa.table({"a": COUNT, "label": LABEL})
    for plaintext_footer in (False, True):
        config = pe.EncryptionConfiguration(
            footer_key="k", column_keys={"k": ["a"]}, plaintext_footer=plaintext_footer, internal_key_material=True
        )
        properties = pe.CryptoFactory(Kms).file_encryption_properties(pe.KmsConnectionConfig(), config)
        file = io.BytesIO()
        with pq.ParquetWriter(file, table.schema, encryption_properties=properties) as writer:
            writer.write_table(table)
        error = refuse(file.getvalue())
        assert "encrypted" in error.detail
        assert first(error)[1] == "corrupt_parquet" if plaintext_footer else isinstance(error, UnsupportedMedia)


def test_doubled_and_missing_column_names_are_refused(refuse: Refuse) -> None:
    for names, code in ((["a", "a", "label"], "duplicate_header"), (["a", "", "label"], "empty_header")):
        file = io.BytesIO()
        pq.write_table(pa.Table.from_arrays([pa.array(COUNT), pa.array(COUNT), pa.array(LABEL)], names=names), file)
        assert first(refuse(file.getvalue()))[1] == code


def test_a_table_without_rows_is_refused(refuse: Refuse) -> None:
    assert first(refuse(parquet({"a": pa.array([], pa.int8()), "label": pa.array([], pa.string())})))[1] == "no_rows"
