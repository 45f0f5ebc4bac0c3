"""What a file is said to be, and what its bytes are."""

import gzip
import io
import itertools
import lzma
import tarfile

import numpy as np
import pytest

from stillhouse.spec.errors import UnsupportedMedia
from tests.ingest.conftest import Refuse, Store, first
from tests.ingest.making import archive, csv, good_rows, image, jsonl, npz, parquet, pets, pixels

_Y = np.arange(60) % 2
FILES = {
    "csv": csv("a,b,label", good_rows()),
    "jsonl": jsonl({"a": i, "label": i % 2} for i in range(60)),
    "parquet": parquet({"a": list(range(60)), "label": _Y}),
    "npz": npz(x=np.arange(120.0).reshape(60, 2), y=_Y),
    "zip": archive(pets()),
}


@pytest.mark.parametrize("name", FILES)
def test_the_format_is_known_by_the_bytes(store: Store, name: str) -> None:
    assert store(FILES[name], format=name).bytes == store(FILES[name], format="auto").bytes


@pytest.mark.parametrize(("declared", "found"), [*itertools.permutations(FILES, 2)])
def test_a_wrong_declaration_is_an_error(refuse: Refuse, declared: str, found: str) -> None:
    error = refuse(FILES[found], format=declared)
    assert isinstance(error, UnsupportedMedia)
    assert first(error) == ("?format", "format_mismatch")


def _tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as out:
        out.addfile(tarfile.TarInfo("cat/0.png"), io.BytesIO())
    return file.getvalue()


def _npy() -> bytes:
    file = io.BytesIO()
    np.save(file, np.arange(5))
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (gzip.compress(FILES["csv"]), "gzip"),
        (lzma.compress(FILES["csv"]), "xz"),
        (_tar(), "tar"),
        (_npy(), "npy"),
        (image(pixels(6, 5)), "PNG"),
        (image(pixels(6, 5), "JPEG"), "JPEG"),
        (image(pixels(6, 5), "GIF"), "GIF"),
        (b"\x80\x04\x95\x10\x00\x00\x00", "pickle"),
        (b"\x89HDF\r\n\x1a\n" + bytes(50), "HDF5"),
        (b"ARROW1\0\0" + bytes(50), "Arrow"),
        (b"7z\xbc\xaf\x27\x1c" + bytes(50), "7z"),
        (b"PARE\x15\x00" + bytes(50), "encrypted Parquet"),
        (b'[{"a": 1, "label": 0}]', "JSON"),
        (b'\n [{"a": 1, "label": 0}]\n', "JSON"),
    ],
)
def test_a_format_that_is_not_read_is_named(refuse: Refuse, data: bytes, word: str) -> None:
    error = refuse(data)
    assert isinstance(error, UnsupportedMedia)
    assert first(error) == ("/file", "unsupported_format")
    assert word in error.detail


@pytest.mark.parametrize("name", ["PAR1", "PARE", "ORC", "Obj", "GIF8", "BZh", "FEA1"])
def test_a_column_named_like_a_magic_number_is_a_column(store: Store, name: str) -> None:
    assert store(csv(f"{name},b,label", good_rows())).facts.features[0].name == name


def test_a_brace_begins_json_lines_unless_csv_is_said_and_no_object_can_begin_so(store: Store, refuse: Refuse) -> None:
    braces = csv("{a},b,label", good_rows())
    assert first(refuse(braces)) == ("/file/rows/1", "bad_json")
    assert store(braces, format="csv").facts.features[0].name == "{a}"
    assert first(refuse(b'\xef\xbb\xbf\r\n {\t"a": 1}\n', format="csv")) == ("?format", "format_mismatch")


def test_bytes_that_are_nothing_are_refused(refuse: Refuse) -> None:
    assert first(refuse(np.random.default_rng(0).bytes(5000)))[1] in ("not_utf8", "nul_byte")
