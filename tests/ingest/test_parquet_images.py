"""Images in a Parquet column, as Hugging Face writes them."""

import contextlib
import io
import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stillhouse.spec.errors import StillhouseError, TooLarge
from stillhouse.spec.limits import Limits
from tests.ingest.conftest import Refuse, Store, first
from tests.ingest.making import archive, image, parquet, pixels

IMAGES = [image(pixels(6, 5, 3, seed=i), kind="PNG") for i in range(24)]
LABELS = [i % 2 for i in range(24)]


def cells(images: list[bytes | None]) -> Any:
    """A column {bytes, path}."""
    rows = [None if data is None else {"bytes": data, "path": f"{i}.png"} for i, data in enumerate(images)]
    return pa.array(rows, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))


def hugging_face(names: Any = ("cat", "dog"), label: str = "label", **columns: Any) -> bytes:
    """A file as `datasets` writes it, with the features in the schema."""
    features = {"image": {"_type": "Image"}, label: {"names": list(names), "_type": "ClassLabel"}}
    table = pa.table({"image": cells(list(IMAGES)), label: LABELS, **columns})
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    return written(table)


def written(table: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    pq.write_table(table, file, **options)
    return file.getvalue()


def test_a_hugging_face_file_becomes_the_dataset_its_images_would_in_a_zip(store: Store) -> None:
    stored = store(hugging_face())
    assert stored.facts.task == "image-classification"
    assert stored.facts.classes == ("cat", "dog")
    assert stored.y.tolist() == LABELS
    for i in range(24):
        np.testing.assert_array_equal(stored.x[i], pixels(6, 5, 3, seed=i).transpose(2, 0, 1))
    members = [
        (f"{('cat', 'dog')[k]}/{i:02}.png", data) for i, (k, data) in enumerate(zip(LABELS, IMAGES, strict=True))
    ]
    zipped = store(archive(members))
    order = sorted(range(24), key=lambda i: (LABELS[i], i))
    np.testing.assert_array_equal(zipped.x, stored.x[order])
    assert zipped.facts == stored.facts
    assert zipped.report.class_counts == stored.report.class_counts


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
def test_a_bare_column_of_bytes_holds_images_too(store: Store, kind: Any) -> None:
    stored = store(parquet({"label": LABELS, "picture": pa.array(IMAGES, kind)}))
    assert stored.facts.shape == (3, 6, 5)
    assert stored.facts.classes == ("0", "1")
    assert stored.y.tolist() == LABELS


def test_jpegs_of_several_sizes_are_brought_to_one_size(store: Store) -> None:
    data = [image(pixels(8 + i % 3, 9, 3, seed=i), kind="JPEG") for i in range(24)]
    stored = store(parquet({"image": cells(list(data)), "label": LABELS}))
    assert stored.facts.shape == (3, 9, 9)
    assert any("different sizes" in note for note in stored.report.notes)
    assert store(parquet({"image": cells(list(data)), "label": LABELS}), image_size=4).facts.shape == (3, 4, 4)


def test_rows_come_in_order_over_many_row_groups_and_blocks(store: Store) -> None:
    stored = store(written(pa.table({"image": cells(list(IMAGES)), "label": LABELS}), row_group_size=5))
    for i in range(24):
        np.testing.assert_array_equal(stored.x[i], pixels(6, 5, 3, seed=i).transpose(2, 0, 1))


def test_a_corrupt_cell_is_named_by_its_row_and_can_be_dropped(store: Store, refuse: Refuse) -> None:
    broken: list[bytes | None] = list(IMAGES)
    broken[4], broken[7], broken[9] = broken[4][:60], None, b"GIF89a not read"  # type: ignore[index]
    data = parquet({"image": cells(broken), "label": LABELS})
    error = refuse(data)
    assert [(e.pointer, e.code) for e in error.errors] == [
        ("/file/rows/5", "corrupt_image"),
        ("/file/rows/8", "empty_cell"),
        ("/file/rows/10", "unsupported_image"),
    ]
    stored = store(data, bad_rows="drop")
    assert stored.report.rows_dropped == 3
    assert stored.y.tolist() == [LABELS[i] for i in range(24) if i not in (4, 7, 9)]
    np.testing.assert_array_equal(stored.x[4], pixels(6, 5, 3, seed=5).transpose(2, 0, 1))


def test_references_to_files_are_told_apart_from_images(refuse: Refuse) -> None:
    rows = [{"bytes": None, "path": "a.png"}] * 24
    column = pa.array(rows, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    error = refuse(parquet({"image": column, "label": LABELS}))
    assert first(error) == ("/file/rows/1", "empty_cell")
    assert "write the bytes" in error.errors[0].detail


def test_the_only_class_label_is_the_label_whatever_its_name(store: Store, refuse: Refuse) -> None:
    assert store(hugging_face(label="fine_label")).facts.classes == ("cat", "dog")
    assert first(refuse(parquet({"image": cells(list(IMAGES)), "fine_label": LABELS}))) == ("?label", "no_label")


def test_text_labels_and_a_split_column_are_read(store: Store, refuse: Refuse) -> None:
    part = ["test" if i % 6 == 5 else "val" if i % 6 == 4 else "train" for i in range(24)]
    columns = {"image": cells(list(IMAGES)), "kind": ["ape" if k else "zebra" for k in LABELS], "part": part}
    stored = store(parquet(columns), label="kind", split_column="part")
    assert stored.facts.classes == ("ape", "zebra")
    assert stored.splits == [{"val": "validation"}.get(p, p) for p in part]
    assert not any("left out" in note for note in stored.report.notes)
    columns["part"][3] = "perhaps"
    assert first(refuse(parquet(columns), label="kind", split_column="part")) == ("/file/rows/4", "bad_split")


def test_other_columns_are_left_out_with_a_note(store: Store) -> None:
    stored = store(hugging_face(caption=["text"] * 24))
    assert any("'caption'" in note and "left out" in note for note in stored.report.notes)


def test_two_image_columns_are_refused_until_one_is_ignored(store: Store, refuse: Refuse) -> None:
    columns = {"image": cells(list(IMAGES)), "mask": cells(list(IMAGES)), "label": LABELS}
    assert first(refuse(parquet(columns))) == ("/file/columns/mask", "several_image_columns")
    assert store(parquet(columns), ignore=["mask"]).facts.shape == (3, 6, 5)


def test_with_the_image_column_ignored_the_rest_is_a_table(store: Store) -> None:
    columns = {"image": cells(list(IMAGES)), "width": list(range(24)), "label": LABELS}
    assert store(parquet(columns), ignore=["image"]).facts.task == "tabular-classification"


def test_an_image_size_means_nothing_for_a_table(refuse: Refuse) -> None:
    error = refuse(parquet({"a": list(range(24)), "label": LABELS}), image_size=8)
    assert first(error) == ("?image_size", "option_does_not_apply")


def test_labels_outside_the_named_classes_are_bad_rows(refuse: Refuse) -> None:
    features = {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}
    table = pa.table({"image": cells(list(IMAGES)), "label": [*LABELS[:-1], 7]})
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    error = refuse(written(table))
    assert first(error) == ("/file/rows/24", "label_out_of_range")


def test_minus_one_and_null_mean_no_label(store: Store, refuse: Refuse) -> None:
    features = {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}
    labels = [None if i % 8 == 6 else -1 if i % 8 == 7 else LABELS[i] for i in range(24)]
    table = pa.table({"image": cells(list(IMAGES)), "label": pa.array(labels, pa.int64())})
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    stored = store(written(table), unlabelled="keep")
    assert stored.facts.unlabelled == 6
    assert stored.y.tolist() == [-1 if i % 8 > 5 else LABELS[i] for i in range(24)]
    assert first(refuse(written(table))) == ("/file/rows/7", "empty_label")


@pytest.mark.parametrize(
    "said",
    [
        "{",
        "[1]",
        '{"info": 3}',
        '{"info": {"features": {"label": {"_type": "ClassLabel", "names": 5}}}}',
        "[" * 100_000,
    ],
    ids=["cut", "list", "number", "names", "deep"],
)
def test_broken_features_are_passed_over_with_a_note(store: Store, said: str) -> None:
    table = pa.table({"image": cells(list(IMAGES)), "label": LABELS}).replace_schema_metadata({"huggingface": said})
    stored = store(written(table))
    assert stored.facts.classes == ("0", "1")
    assert any("could not be read" in note for note in stored.report.notes)


def test_class_names_are_held_to_the_rules_for_names(refuse: Refuse) -> None:
    assert first(refuse(hugging_face(names=["cat", "d\x00g"])))[1] == "bad_name"
    assert first(refuse(hugging_face(names=["cat", "cat"])))[1] == "duplicate_class"
    assert isinstance(refuse(hugging_face(names=["a", "b", "c"]), limits=Limits(max_classes=2)), TooLarge)


def test_what_the_footer_claims_is_checked_before_an_image_is_read(refuse: Refuse) -> None:
    data = hugging_face()
    assert first(refuse(data, limits=Limits(max_rows=10)))[1] == "too_many_rows"
    assert first(refuse(data, limits=Limits(max_expanded_bytes=500)))[1] == "too_many_bytes"


def test_one_image_repeated_a_thousand_times_stays_within_the_limit_it_unfolds_to(refuse: Refuse) -> None:
    # A dictionary page holds it once, so the footer claims little.
    big = image(pixels(80, 80, 3))
    table = pa.table({"image": cells([big] * 1000), "label": [i % 2 for i in range(1000)]})
    data = written(table, use_dictionary=True)
    assert len(data) < 10 * len(big)
    error = refuse(data, limits=Limits(max_expanded_bytes=20 * len(big)))
    assert first(error)[1] == "too_many_bytes"
    assert "unfold" in error.detail


def test_cut_and_flipped_files_are_refused_and_never_crash(refuse: Refuse, store: Store) -> None:
    data = hugging_face()
    for at in range(8, len(data) - 8, 97):
        broken = bytearray(data)
        broken[at] ^= 0xFF
        with contextlib.suppress(StillhouseError):  # anything else is a crash
            store(bytes(broken))
    assert first(refuse(data[: len(data) // 2]))[1] == "corrupt_parquet"


def test_labels_that_are_lists_are_refused_by_name(refuse: Refuse) -> None:
    data = parquet({"image": cells(list(IMAGES)), "label": [[k] for k in LABELS]})
    assert first(refuse(data)) == ("/file/columns/label", "unsupported_type")


def test_a_file_without_rows_is_refused(refuse: Refuse) -> None:
    assert first(refuse(parquet({"image": cells([]), "label": pa.array([], pa.int64())})))[1] == "no_rows"
