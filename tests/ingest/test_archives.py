"""Hostile ZIPs, as image folders and as .npz: nothing leaves its folder, nothing unfolds beyond its limits."""

import io
import stat
import struct
import zipfile
from typing import Any

import numpy as np
import pytest

from stillhouse.spec.errors import TooLarge
from stillhouse.spec.limits import Limits
from tests.ingest.conftest import Refuse, Store, first
from tests.ingest.making import archive, image, npz, pets, pixels
from tests.ingest.test_npz import member as npy


@pytest.mark.parametrize(
    "name",
    [
        *("../x.png", "cat/../../x.png", "/cat/x.png", "cat//x.png", "./cat/x.png", "cat/./x.png"),
        *("C:/cat/x.png", "c:x.png", "cat\\x.png", "..\\x.png"),
        *("cat/x\n.png", "cat/\x1b[31m.png", "cat/\u202egnp.x", "cat/" + "x" * 1001),
    ],
)
def test_a_name_that_could_leave_its_folder_is_refused(refuse: Refuse, name: str) -> None:
    error = refuse(archive([*pets(), (name, image(pixels(6, 5, 3)))]))
    assert [e.code for e in error.errors] == ["unsafe_name"]


def test_a_name_behind_a_nul_is_refused(refuse: Refuse) -> None:
    data = archive([*pets(), ("cat/x.png?/../../y", image(pixels(6, 5, 3)))])
    assert first(refuse(data.replace(b"cat/x.png?", b"cat/x.png\0")))[1] in ("unsafe_name", "corrupt_archive")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK])
def test_links_and_devices_are_refused(refuse: Refuse, kind: int) -> None:
    link = zipfile.ZipInfo("cat/link.png")
    link.external_attr = (kind | 0o777) << 16
    assert first(refuse(archive([*pets(), (link, b"/etc/passwd")]))) == (
        "/file/members/cat~1link.png",
        "special_member",
    )


def test_encrypted_members_are_refused(refuse: Refuse) -> None:
    data = bytearray(archive(pets()))
    at = data.rindex(b"PK\x01\x02")
    data[at + 8] |= 1
    assert first(refuse(bytes(data))) == ("/file/members/dog~14.png", "encrypted_member")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_packing_methods_are_refused(refuse: Refuse, method: int) -> None:
    assert first(refuse(archive(pets(), method=method)))[1] == "unsupported_compression"


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_doubled_names_are_refused(refuse: Refuse) -> None:
    error = refuse(archive([*pets(), pets()[0]]))
    assert first(error) == ("/file/members/cat~10.png", "duplicate_member")
    with_folder = refuse(archive([*pets(), ("cat/0.png/", b"")]))
    assert first(with_folder) == ("/file/members/cat~10.png", "duplicate_member")


def test_all_bad_members_are_named_at_once(refuse: Refuse) -> None:
    error = refuse(archive([*pets(), *((f"../{i}.png", b"") for i in range(30))]))
    assert len(error.errors) == 20
    assert "30 members" in error.detail


@pytest.mark.parametrize("inner", ["inner.zip", "inner.npz", "inner", "inner.dat"])
def test_archives_in_the_archive_are_refused(refuse: Refuse, inner: str) -> None:
    error = refuse(archive([*pets(), (f"cat/{inner}", archive(pets()))]))
    assert first(error)[1] in ("nested_archive", "unsupported_image")


def bomb(name: str, size: int) -> bytes:
    """`size` zeros, packed to a thousandth, as one member."""
    file = io.BytesIO()
    block = bytes(1 << 20)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as out, out.open(name, "w") as member:
        for _ in range(size // len(block)):
            member.write(block)
    return file.getvalue()


def test_a_bomb_is_refused_by_its_directory_alone(refuse: Refuse) -> None:
    data = bomb("cat/x.png", 64 << 20)
    assert len(data) < 100_000
    error = refuse(data)
    assert isinstance(error, TooLarge)
    assert first(error) == ("/file", "compression_ratio")
    assert first(refuse(data, limits=Limits(max_expanded_bytes=1 << 20))) == ("/file", "too_many_bytes")


def test_an_honest_array_of_zeros_is_no_bomb(store: Store) -> None:
    x = np.zeros((1000, 100, 100), np.uint8)
    x[:, 0, 0], x[:, 0, 1] = np.arange(1000) % 256, np.arange(1000) // 256
    data = npz(x=x, y=np.arange(1000) % 2)
    assert len(data) * 200 < x.nbytes
    assert store(data).facts.rows["train"] == 700


def declared(data: bytes, size: int) -> bytes:
    """The same archive with another unpacked size declared for its last member, in both places."""
    out = bytearray(data)
    with zipfile.ZipFile(io.BytesIO(data)) as opened:
        local = opened.infolist()[-1].header_offset
    struct.pack_into("<I", out, local + 22, size)
    struct.pack_into("<I", out, out.rindex(b"PK\x01\x02") + 24, size)
    return bytes(out)


@pytest.mark.parametrize("size", [0, 1, 1000, 5_000_000])
def test_a_member_that_lies_about_its_size_is_refused(refuse: Refuse, size: int) -> None:
    lying = declared(archive([*pets(), ("dog/x.png", image(pixels(600, 500, 3)))]), size)
    assert first(refuse(lying)) == ("/file/members/dog~1x.png", "corrupt_member")


def test_an_array_that_unfolds_to_more_than_declared_is_refused(refuse: Refuse) -> None:
    x = npy("(60, 4)", data=bytes(960))
    lying = declared(archive([("y.npy", npy("(60,)", "|u1", bytes(60))), ("x.npy", x + bytes(10 << 20))]), len(x))
    assert first(refuse(lying)) == ("/file/arrays/x", "corrupt_member")


def test_members_that_share_their_bytes_are_refused(refuse: Refuse) -> None:
    data = archive([("cat/0.png", image(pixels(6, 5, 3)))])
    start, end = data.index(b"PK\x01\x02"), data.rindex(b"PK\x05\x06")
    entry = data[start:end]
    entries = b"".join(entry.replace(b"cat/0.png", b"cat/%d.png" % i) for i in range(10))
    tail = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 10, 10, len(entries), start, 0)
    assert first(refuse(data[:start] + entries + tail))[1] == "overlapping_members"


def test_members_are_counted(refuse: Refuse) -> None:
    error = refuse(archive(pets()), limits=Limits(max_archive_members=9))
    assert isinstance(error, TooLarge)
    assert first(error) == ("/file", "too_many_members")


@pytest.mark.parametrize("part", [i / 16 for i in range(1, 16)])
def test_a_truncated_archive_is_refused(refuse: Refuse, part: float) -> None:
    data = archive(pets())
    assert first(refuse(data[: int(len(data) * part)]))[1] == "corrupt_archive"


@pytest.mark.parametrize("tail", [b"", b"PK\x05\x06" + bytes(18), b"PK\x05\x06" + b"\xff" * 18])
def test_a_directory_of_nothing_is_refused(refuse: Refuse, tail: bytes) -> None:
    assert first(refuse(b"PK\x03\x04" + bytes(100) + tail))[1] in ("corrupt_archive", "no_rows")


def test_member_names_do_not_leak_into_paths(refuse: Refuse, store: Store, tmp_path: Any) -> None:
    before = set(tmp_path.parent.rglob("*"))
    refuse(archive([*pets(), ("../escaped.png", image(pixels(6, 5, 3)))]))
    store(archive(pets()))
    assert {path.name for path in set(tmp_path.parent.rglob("*")) - before} <= {"upload.exe", "stored"}
