"""Arrays in an .npz: names, shapes, pixels, labels, and what must never be unpickled."""

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stillhouse.spec.errors import TooLarge
from stillhouse.spec.limits import Limits
from tests.ingest.conftest import Refuse, Store, first
from tests.ingest.making import archive, npz, pixels

N = 60
Y = np.arange(N) % 3
FLAT = np.arange(N * 4, dtype=np.float64).reshape(N, 4)


def member(shape: str, dtype: str = "<f4", data: bytes = b"", fortran: bool = False) -> bytes:
    """An .npy file whose header says what it likes."""
    header = f"{{'descr': {dtype!r}, 'fortran_order': {fortran}, 'shape': {shape}, }}".encode()
    header += b" " * (63 - (10 + len(header)) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data


def test_two_axes_are_a_table(store: Store) -> None:
    stored = store(npz(x=FLAT, y=Y))
    assert stored.facts.task == "tabular-classification"
    assert [f.name for f in stored.facts.features] == ["x0", "x1", "x2", "x3"]
    np.testing.assert_array_equal(stored.x, FLAT.astype(np.float32))
    np.testing.assert_array_equal(stored.y, Y)


@pytest.mark.parametrize("dtype", ["<f4", ">f8", "<i8", ">i2", "u1", "?", "<f2"])
def test_numbers_of_any_type_and_byte_order_are_read(store: Store, dtype: str) -> None:
    x = np.unpackbits(np.arange(N, dtype=np.uint8)[:, None], axis=1).astype(dtype)
    np.testing.assert_array_equal(store(npz(x=x, y=Y.astype(">i2"))).x, x.astype(np.float32))


def test_column_order_is_read_as_row_order(store: Store) -> None:
    images = pixels(N, 6, 5, 3)
    assert store(npz(x=np.asfortranarray(images), y=Y)).bytes == store(npz(x=images, y=Y)).bytes


@pytest.mark.parametrize(
    ("names"),
    [("x", "y"), ("X", "Y"), ("images", "labels"), ("x", "labels")],
)
def test_the_usual_names_are_understood(store: Store, names: tuple[str, str]) -> None:
    images = pixels(N, 6, 5)
    assert store(npz(**{names[0]: images, names[1]: Y})).bytes == store(npz(x=images, y=Y)).bytes


@pytest.mark.parametrize("pattern", ["{kind}_{split}", "{split}_{kind}"])
@pytest.mark.parametrize("validation", ["val", "valid", "validation"])
def test_splits_are_understood(store: Store, pattern: str, validation: str) -> None:
    arrays: dict[str, Any] = {}
    for i, split in enumerate(("train", validation, "test")):
        arrays[pattern.format(kind="x", split=split)] = pixels(30, 6, 5, seed=i)
        arrays[pattern.format(kind="y", split=split)] = np.arange(30) % 3
    stored = store(npz(**arrays))
    assert stored.facts.rows == {"train": 30, "validation": 30, "test": 30}
    for i, split in enumerate(("train", "validation", "test")):
        rows = [j for j, s in enumerate(stored.splits) if s == split]
        np.testing.assert_array_equal(stored.x[rows, 0], pixels(30, 6, 5, seed=i))


def test_train_and_test_as_keras_saves_mnist(store: Store) -> None:
    train, test = pixels(100, 6, 5, seed=1), pixels(20, 6, 5, seed=2)
    stored = store(npz(x_train=train, y_train=np.arange(100) % 2, x_test=test, y_test=np.arange(20) % 2))
    assert stored.facts.rows == {"train": 84, "validation": 16, "test": 20}


@pytest.mark.parametrize(
    ("shape", "stored_shape"),
    [
        ((N, 6, 5), (1, 6, 5)),
        ((N, 6, 5, 1), (1, 6, 5)),
        ((N, 6, 5, 3), (3, 6, 5)),
        ((N, 6, 5, 4), (4, 6, 5)),
        ((N, 3, 6, 5), (3, 6, 5)),
        ((N, 1, 6, 5), (1, 6, 5)),
        ((N, 3, 6, 3), (3, 3, 6)),
    ],
)
def test_channels_are_found_last_or_second(store: Store, shape: tuple[int, ...], stored_shape: tuple[int, ...]) -> None:
    x = pixels(*shape)
    stored = store(npz(x=x, y=Y))
    assert stored.facts.shape == stored_shape
    x = x[..., None] if len(shape) == 3 else x
    expected = x.transpose(0, 3, 1, 2) if x.shape[3] in (1, 3, 4) else x
    np.testing.assert_array_equal(stored.x, expected)


@pytest.mark.parametrize("shape", [(N,), (N, 6, 5, 2), (N, 6, 5, 3, 1)])
def test_other_shapes_are_refused(refuse: Refuse, shape: tuple[int, ...]) -> None:
    assert first(refuse(npz(x=pixels(*shape), y=Y))) == ("/file/arrays/x", "bad_shape")


_whole = pixels(N, 6, 5)


@pytest.mark.parametrize(
    ("x", "expected", "note"),
    [
        (_whole.astype(np.int64), _whole, None),
        (_whole.astype(np.float32), _whole, "up to 255"),
        (_whole / 255, _whole, "multiplied by 255"),
        ((_whole / 255).astype(np.float16) * np.float16(1.0005), _whole, "multiplied by 255"),
        (_whole > 127, (_whole > 127) * 255, "truth values"),
    ],
)
def test_pixels_become_bytes(store: Store, x: Any, expected: Any, note: str | None) -> None:
    stored = store(npz(x=x, y=Y))
    assert stored.x.dtype == np.uint8
    np.testing.assert_allclose(stored.x[:, 0].astype(int), expected.astype(int), atol=1)
    assert [note in n for n in stored.report.notes] == ([True] if note else [])


@pytest.mark.parametrize(
    "x", [_whole.astype(np.int16) - 1, _whole.astype(np.int16) + 1, _whole / 127.5 - 1, _whole / 200, _whole * 2.0]
)
def test_pixels_of_unclear_meaning_are_refused(refuse: Refuse, x: Any) -> None:
    assert first(refuse(npz(x=x, y=Y))) == ("/file/arrays/x", "pixel_range")


@pytest.mark.parametrize("train", [_whole, _whole.astype(np.float32), (_whole > 127).astype(np.uint8)])
def test_splits_of_different_scales_are_refused(refuse: Refuse, train: Any) -> None:
    error = refuse(npz(x_train=train, y_train=Y, x_test=_whole / 255, y_test=Y))
    assert first(error) == ("/file/arrays/x_test", "pixel_range")
    assert "'x_test' and 'x_train'" in error.detail


def test_rows_that_are_not_finite_are_named_as_numpy_counts_them(refuse: Refuse, store: Store) -> None:
    x = FLAT.copy()
    x[7, 2], x[9, 0], x[11, 1] = np.nan, np.inf, 1e39
    error = refuse(npz(x_train=FLAT + 0.5, y_train=Y, x_test=x, y_test=Y))
    assert [(e.pointer, e.code) for e in error.errors] == [
        (f"/file/arrays/x_test/{i}", "not_finite") for i in (7, 9, 11)
    ]
    stored = store(npz(x=x, y=Y), bad_rows="drop")
    assert [row.row for row in stored.report.dropped] == ["x[7]", "x[9]", "x[11]"]
    np.testing.assert_array_equal(stored.y, np.delete(Y, [7, 9, 11]))


def test_arrays_of_which_most_rows_are_bad_are_not_told_of_separators_alone(refuse: Refuse) -> None:
    error = refuse(npz(x=FLAT * np.nan, y=Y), bad_rows="drop")
    assert str(error.hint).startswith("See what the first have in common; of a table,")


def test_images_with_nan_are_bad_rows(store: Store) -> None:
    x = _whole / 255
    x[3, 0, 0] = np.nan
    stored = store(npz(x=x, y=Y), bad_rows="drop")
    assert [row.row for row in stored.report.dropped] == ["x[3]"]
    assert len(stored.x) == N - 1


@pytest.mark.parametrize(
    ("y", "classes"),
    [
        (Y * 5, ("0", "5", "10")),
        (Y.astype(np.float32), ("0", "1", "2")),
        (Y[:, None], ("0", "1", "2")),
        (Y > 0, ("false", "true")),
        (np.array(["dög", "cat", "bee"])[Y], ("bee", "cat", "dög")),
        (np.array([b"dog", b"cat", b"bee"])[Y], ("bee", "cat", "dog")),
    ],
)
def test_labels_are_numbers_or_text(store: Store, y: Any, classes: tuple[str, ...]) -> None:
    assert store(npz(x=FLAT, y=y)).facts.classes == classes


def test_named_classes_keep_their_order(store: Store) -> None:
    names = np.array(["zebra", "ant", "cow", "unicorn"])
    by_number, by_name = store(npz(x=FLAT, y=Y, classes=names)), store(npz(x=FLAT, y=names[Y], classes=names))
    assert by_number.facts.classes == ("zebra", "ant", "cow", "unicorn")
    assert by_number.bytes == by_name.bytes
    np.testing.assert_array_equal(by_number.y, Y)
    assert any("No row belongs to 'unicorn'" in note for note in by_number.report.notes)


@pytest.mark.parametrize(
    ("names", "y", "labels"),
    [
        ([10, 20, 30], Y, ["10", "20", "30"]),
        ([10, 20, 30], np.array([10, 20, 30])[Y], ["10", "20", "30"]),
        ([1, 2, 3], Y + 1, ["1", "2", "3"]),
        ([0, 1, 2], Y, ["0", "1", "2"]),
        (["7", "cat", "0"], np.array(["7", "cat", "0"])[Y], ["7", "cat", "0"]),
    ],
)
def test_classes_named_by_numbers_are_found_by_name_and_by_place(
    store: Store, names: list[Any], y: Any, labels: list[str]
) -> None:
    assert store(npz(x=FLAT, y=y, classes=np.array(names))).labels[:3] == labels


@pytest.mark.parametrize("names", [[2, 1, 0], [1, 2, 0], [0, 2, 1, 5]])
def test_labels_that_name_one_class_and_count_to_another_are_refused(refuse: Refuse, names: list[int]) -> None:
    assert first(refuse(npz(x=FLAT, y=Y, classes=np.array(names)))) == ("/file/arrays/classes", "unclear_arrays")


@pytest.mark.parametrize("y", [np.where(Y == 2, 3, Y), np.where(Y == 2, -1, Y), np.array(["a", "b", "z"])[Y]])
def test_a_label_outside_the_named_classes_is_a_bad_row(refuse: Refuse, y: Any) -> None:
    error = refuse(npz(x=FLAT, y=y, classes=np.array(["a", "b", "c"])))
    assert first(error) == ("/file/arrays/x/2", "label_out_of_range")


@pytest.mark.parametrize(
    ("arrays", "pointer", "code"),
    [
        ({"x": FLAT, "y": Y / 2}, "/file/arrays/y", "fractional_labels"),
        ({"x": FLAT, "y": np.where(Y == 0, np.nan, Y)}, "/file/arrays/x/0", "empty_label"),
        ({"x": FLAT, "y": np.eye(3)[Y]}, "/file/arrays/y", "bad_shape"),
        ({"x": FLAT, "y": Y[:-1]}, "/file/arrays/y", "length_mismatch"),
        ({"x": FLAT, "y": Y * 0}, "/file/arrays/y", "one_class"),
        ({"x": FLAT * 1j, "y": Y}, "/file/arrays/x", "unsupported_type"),
        ({"x": FLAT.astype("M8[s]"), "y": Y}, "/file/arrays/x", "unsupported_type"),
        ({"x": FLAT.astype(str), "y": Y}, "/file/arrays/x", "unsupported_type"),
        ({"x": np.zeros((N, 2), [("a", "f4")]), "y": Y}, "/file/arrays/x", "unsupported_type"),
        ({"x": FLAT[:0], "y": Y[:0]}, "/file/arrays/x", "bad_shape"),
        ({"x": FLAT[:, :0], "y": Y}, "/file/arrays/x", "bad_shape"),
        ({"x": np.float64(3), "y": Y}, "/file/arrays/x", "bad_shape"),
        ({"x": FLAT}, "/file", "unclear_arrays"),
        ({"x": FLAT, "y_train": Y}, "/file", "unclear_arrays"),
        ({"arr_0": FLAT, "arr_1": Y}, "/file", "unclear_arrays"),
        ({"x": FLAT, "images": FLAT, "y": Y}, "/file/arrays/x", "unclear_arrays"),
        ({"x_train": FLAT, "y_train": Y, "x": FLAT, "y": Y}, "/file", "unclear_arrays"),
        ({"x_train": FLAT, "y_train": Y, "x_test": FLAT[:, :2], "y_test": Y}, "/file/arrays/x_test", "bad_shape"),
        ({"x": FLAT, "y": Y, "classes": np.array(["a", "a", "b"])}, "/file/arrays/classes", "duplicate_class"),
        ({"x": FLAT, "y": Y, "classes": np.array([["a", "b", "c"]])}, "/file/arrays/classes", "bad_shape"),
        ({"x": FLAT, "y": Y, "classes": np.array(["a", "b\n", "c\x00d"])}, "/file/arrays/classes", "bad_name"),
        ({"x": FLAT, "y": np.array([b"\xff", b"a", b"b"])[Y]}, "/file/arrays/y", "bad_name"),
        ({"x": FLAT, "y": np.array(["\ud800", "a", "b"])[Y]}, "/file/arrays/y", "bad_name"),
    ],
)
def test_arrays_that_do_not_make_sense_are_refused(
    refuse: Refuse, arrays: dict[str, Any], pointer: str, code: str
) -> None:
    assert first(refuse(npz(**arrays))) == (pointer, code)


class CreatesAFile:
    """Unpickled, it would run a command."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch {self._path}",)


def test_a_pickle_in_an_array_is_never_run(refuse: Refuse, tmp_path_factory: pytest.TempPathFactory) -> None:
    canary = tmp_path_factory.mktemp("canary") / "was-run"
    evil = np.array([CreatesAFile(canary)] * N, dtype=object)
    for arrays in ({"x": evil, "y": Y}, {"x": FLAT, "y": evil}, {"x": FLAT, "y": Y, "classes": evil}):
        assert first(refuse(npz(**arrays)))[1] == "object_array"
    assert not canary.exists()
    run, arguments = CreatesAFile(canary).__reduce__()
    run(*arguments)
    assert canary.exists(), "unpickled, it would have been seen"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x93NUMPY",
        b"not an array",
        b"\x93NUMPY\x03\x00" + b"\x10\x00\x00\x00" + b" " * 16,
        b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 65_535,
        b"\x93NUMPY\x01\x00\x0a\x00" + b"__import__",
        member("(60, 4)", data=b"\0" * 959),
        member("(60, 4)", data=b"\0" * 961),
        member("(60, -4)", data=b"\0" * 960),
        member("(4194305, 4194305, 211106198978564)", data=b"\0" * 960),
        member("(True, 4)", data=b"\0" * 16),
        member("(60.0, 4)", data=b"\0" * 960),
        member("60", data=b"\0" * 960),
        member("(60, 4)", dtype="<q99", data=b"\0" * 960),
        member("(60, 4)", dtype="system('x')", data=b"\0" * 960),
    ],
)
def test_a_broken_or_lying_array_header_is_refused(refuse: Refuse, data: bytes) -> None:
    error = refuse(archive([("x.npy", data), ("y.npy", member("(60,)", "|u1", bytes(Y.astype(np.uint8))))]))
    assert first(error) == ("/file/arrays/x", "corrupt_member")


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [("(1152921504606846976, 0)", "<f4"), ("(1099511627776,)", "<U0"), ("(60,)", "<U0"), ("(60,)", "|S0")],
)
def test_a_shape_that_costs_no_bytes_is_refused(refuse: Refuse, shape: str, dtype: str) -> None:
    error = refuse(archive([("x.npy", member("(60, 4)", data=bytes(960))), ("y.npy", member(shape, dtype))]))
    assert first(error)[1] in ("too_many_rows", "unsupported_type")


@pytest.mark.parametrize("part", [i / 16 for i in range(1, 16)])
def test_a_truncated_file_is_refused(refuse: Refuse, part: float) -> None:
    data = npz(x=FLAT, y=Y)
    assert first(refuse(data[: int(len(data) * part)], format="auto"))[1] == "corrupt_archive"


def test_a_flipped_byte_in_packed_numbers_is_refused(refuse: Refuse) -> None:
    x = np.random.default_rng(0).normal(size=(N, 50))
    data = bytearray(archive([("x.npy", member("(60, 50)", "<f8", x.tobytes()))], method=zipfile.ZIP_STORED))
    data[5000] ^= 1
    y = member("(60,)", "|u1", bytes(Y.astype(np.uint8)))
    with_y = archive([("x.npy", member("(60, 50)", "<f8", x.tobytes())), ("y.npy", y)], method=zipfile.ZIP_STORED)
    broken = bytearray(with_y)
    broken[5000] ^= 1
    assert first(refuse(bytes(broken))) == ("/file/arrays/x", "corrupt_member")


def test_images_are_resized_on_request_and_at_the_limit(store: Store) -> None:
    x = np.broadcast_to(np.array([10, 20, 30], np.uint8), (N, 9, 6, 3)).copy()
    x[:, 0, 0, 0] = np.arange(N)
    stored = store(npz(x=x, y=Y), image_size=3)
    assert stored.facts.shape == (3, 3, 3)
    np.testing.assert_array_equal(stored.x[:, :, 2, 2], np.broadcast_to([10, 20, 30], (N, 3)))
    limited = store(npz(x=x, y=Y), limits=Limits(max_image_side=8))
    assert limited.facts.shape == (3, 8, 8)
    assert any("limit of 8 pixels" in note for note in limited.report.notes)


def test_sizes_are_limited_before_reading(refuse: Refuse) -> None:
    images, table = npz(x=pixels(N, 6, 5), y=Y), npz(x=FLAT, y=Y)
    assert first(refuse(images, limits=Limits(max_image_pixels=29)))[1] == "too_many_pixels"
    assert first(refuse(table, limits=Limits(max_columns=3)))[1] == "too_many_columns"
    assert first(refuse(table, limits=Limits(max_rows=N - 1)))[1] == "too_many_rows"
    assert isinstance(refuse(table, limits=Limits(max_expanded_bytes=2000)), TooLarge)


@pytest.mark.parametrize("options", [{"label": "y"}, {"split_column": "y"}, {"ignore": ("y",)}, {"image_size": 8}])
def test_the_options_of_tables_and_images_do_not_mix(refuse: Refuse, options: dict[str, Any]) -> None:
    assert first(refuse(npz(x=FLAT, y=Y), **options)) == ("?" + next(iter(options)), "option_does_not_apply")


def test_other_arrays_are_ignored_with_a_note(store: Store) -> None:
    stored = store(npz(x=FLAT, y=Y, weights=Y))
    assert stored.report.notes == ["Arrays that were ignored: 'weights.npy'."]
