"""Hostile ZIPs of image folders."""

import io
import stat
import struct
import zipfile
from collections.abc import Callable
from functools import partial

from tests.hostile.case import Case, uploads
from tests.ingest.making import archive, image, npz, pets, pixels

PNG = image(pixels(6, 5, 3, seed=7))
_LOCAL, _CENTRAL, _END = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"


def with_member(name: str | zipfile.ZipInfo, data: bytes = PNG) -> Callable[[], bytes]:
    """Good images and one member more."""
    return lambda: archive([*pets(), (name, data)])


def special(kind: int) -> zipfile.ZipInfo:
    """A member that is no file."""
    info = zipfile.ZipInfo("cat/special.png")
    info.external_attr = (kind | 0o777) << 16
    return info


def patched(marker: bytes, offset: int, value: bytes) -> bytes:
    """Good images, with some bytes of the last header of one kind replaced."""
    data = bytearray(archive(pets()))
    at = data.rindex(marker) + offset
    data[at : at + len(value)] = value
    return bytes(data)


def cut(share: float) -> bytes:
    data = archive(pets())
    return data[: int(len(data) * share)]


def doubled(names: tuple[str, str]) -> bytes:
    """Two members whose directory entries bear these names, of the same length as `cat/0.png`."""
    data = archive([*pets(), ("cat/x.png", PNG)])
    return data.replace(b"cat/x.png", names[0].encode()).replace(b"dog/4.png", names[1].encode())


def quine_like(depth: int) -> bytes:
    """An archive in an archive in an archive …"""
    inner = archive(pets())
    for _ in range(depth):
        inner = archive([*pets(), ("cat/more.zip", inner)])
    return inner


def overlapping() -> bytes:
    """Each entry of the directory points to the same packed bytes (a better zip bomb)."""
    data = archive([(f"cat/{i}.png", PNG) for i in range(5)] + [(f"dog/{i}.png", PNG) for i in range(5)])
    out = bytearray(data)
    at = out.index(_CENTRAL)
    while at != -1:
        struct.pack_into("<I", out, at + 42, 0)
        at = out.find(_CENTRAL, at + 4)
    return bytes(out)


def many_members(count: int) -> bytes:
    return archive([(f"cat/{i}.txt", b"") for i in range(count)], zipfile.ZIP_STORED)


def bomb(megabytes: int) -> bytes:
    return archive([*pets(), ("cat/zeros.png", bytes(megabytes * 1_000_000))])


def zip64_lie() -> bytes:
    """A ZIP64 field that says the member unfolds to 16 exbibytes."""
    data = bytearray(archive(pets()))
    at = data.rindex(_CENTRAL)
    size = struct.unpack_from("<H", data, at + 28)[0]
    struct.pack_into("<I", data, at + 24, 0xFFFFFFFF)
    struct.pack_into("<H", data, at + 30, 12)
    extra = struct.pack("<HHQ", 1, 8, 2**64 - 1)
    data[at + 46 + size : at + 46 + size] = extra
    end = data.rindex(_END)
    struct.pack_into("<I", data, end + 12, struct.unpack_from("<I", data, end + 12)[0] + len(extra))
    return bytes(data)


def encrypted() -> bytes:
    return patched(_CENTRAL, 8, b"\x01\x00")


def wrong_checksum() -> bytes:
    """The last member's checksum is wrong in both places."""
    data = bytearray(patched(_CENTRAL, 16, b"\xde\xad\xbe\xef"))
    at = data.rindex(_LOCAL)
    data[at + 14 : at + 18] = b"\xde\xad\xbe\xef"
    return bytes(data)


def polyglot(front: bytes) -> bytes:
    """A ZIP behind something else, as self-extracting ones are."""
    return front + archive(pets())


def comment() -> bytes:
    """A comment that holds another end of directory."""
    out = io.BytesIO(archive(pets()))
    with zipfile.ZipFile(out, "a") as opened:
        opened.comment = _END + bytes(18) + b"x" * 1000
    return out.getvalue()


_NAMES = {
    "a member outside its folder": "../x.png",
    "a member outside its folder, deeper": "cat/../../x.png",
    "an absolute member": "/etc/cron.d/x.png",
    "a member on a Windows drive": "C:/cat/x.png",
    "a member on a Windows share": "\\\\host\\share\\x.png",
    "a member with backslashes": "..\\..\\x.png",
    "an empty part in a name": "cat//x.png",
    "a dot in a path": "cat/./x.png",
    "a line break in a name": "cat/x\n.png",
    "an escape sequence in a name": "cat/\x1b[2J.png",
    "a right-to-left override in a name": "cat/\u202egnp.x",
    "a name of 1,001 characters": "cat/" + "x" * 997,
}

_ROWS = [
    *((name, with_member(member), "invalid_data/unsafe_name", "/file/members/") for name, member in _NAMES.items()),
    ("a symbolic link", with_member(special(stat.S_IFLNK), b"/etc/passwd"), "invalid_data/special_member", "/file/m"),
    ("a device", with_member(special(stat.S_IFBLK), b""), "invalid_data/special_member", "/file/members/"),
    ("a pipe", with_member(special(stat.S_IFIFO), b""), "invalid_data/special_member", "/file/members/"),
    (
        "two members of one name",
        partial(doubled, ("cat/0.png", "dog/4.png")),
        "invalid_data/duplicate_member",
        "/file/members/cat~10.png",
    ),
    ("a file that is also a folder", with_member("cat/0.png/"), "invalid_data/duplicate_member", "/file/members/"),
    ("names that differ in case alone", with_member("CAT/0.png"), "invalid_data/class_too_small", "/file/classes/CAT"),
    ("entries that overlap", overlapping, "invalid_data/overlapping_members", "/file/members/"),
    ("an encrypted member", encrypted, "invalid_data/encrypted_member", "/file/members/dog~14.png"),
    ("a wrong checksum", wrong_checksum, "invalid_data/corrupt_member", "/file/members/dog~14.png"),
    (
        "members packed with bzip2",
        lambda: archive(pets(), zipfile.ZIP_BZIP2),
        "invalid_data/unsupported_compression",
        "/file/members/",
    ),
    ("an unknown packing", lambda: patched(_CENTRAL, 10, b"\x63\x00"), "invalid_data/unsupported_compression", "/file"),
    (
        "a size of 4 GiB",
        lambda: patched(_CENTRAL, 24, b"\xfe\xff\xff\xff"),
        "too_large/too_many_bytes",
        "/file",
    ),
    ("a size of 16 EiB", zip64_lie, "too_large/too_many_bytes", "/file"),
    ("a size of nothing", lambda: patched(_CENTRAL, 24, bytes(4)), "invalid_data/corrupt_member", "/file/members/"),
    (
        "a place behind the file",
        lambda: patched(_CENTRAL, 42, b"\xff\xff\xff\x7f"),
        "invalid_data/overlapping_members",
        "/file",
    ),
    (
        "a directory behind the file",
        lambda: patched(_END, 16, b"\xff\xff\xff\x7f"),
        "invalid_data/corrupt_member",
        "/file",
    ),
    ("a directory of 65,535 entries it lacks", lambda: patched(_END, 8, b"\xfe\xff\xfe\xff"), "", ""),
    ("a bomb of 50 MB", lambda: bomb(50), "too_large/compression_ratio", "/file"),
    ("a bomb beyond what may be unfolded", lambda: bomb(80), "too_large/too_many_bytes", "/file"),
    ("20,000 empty members", lambda: many_members(20_000), "invalid_data/no_rows", "/file"),
    ("an archive in an archive", lambda: quine_like(1), "invalid_data/nested_archive", "/file/members/cat~1more.zip"),
    ("archives 20 deep", lambda: quine_like(20), "invalid_data/nested_archive", "/file/members/cat~1more.zip"),
    (
        "an archive that says it is an image",
        with_member("cat/x.png", archive(pets())),
        "invalid_data/unsupported_image",
        "/file/members/cat~1x.png",
    ),
    ("arrays beside images", with_member("x.npy", npz(x=pixels(5, 5))), "invalid_data/corrupt_member", "/file"),
    ("a ZIP behind a GIF", lambda: polyglot(b"GIF89a"), "unsupported_media/unsupported_format", "/file"),
    ("a ZIP behind a program", lambda: polyglot(b"MZ" + bytes(510)), "invalid_data/nul_byte", "/file"),
    ("a ZIP behind text", lambda: polyglot(b"a,label\n1,x\n"), "invalid_data/nul_byte", "/file"),
    ("a second directory in the comment", comment, "invalid_data/no_rows", "/file"),
    ("no member at all", lambda: archive([]), "invalid_data/no_rows", "/file"),
    ("folders alone", lambda: archive([("cat/", b""), ("dog/", b"")]), "invalid_data/no_rows", "/file"),
    ("one folder", lambda: archive(pets()[:5]), "invalid_data/one_class", "/file"),
    (
        "images in no folder",
        lambda: archive([(f"{i}.png", PNG) for i in range(5)]),
        "invalid_data/misplaced_image",
        "/file",
    ),
    ("a header and nothing else", lambda: _LOCAL + bytes(100), "invalid_data/corrupt_archive", "/file"),
    ("an end of directory alone", lambda: _END + bytes(18), "invalid_data/no_rows", "/file"),
    *((f"{share:.0%} of a ZIP", partial(cut, share), "invalid_data/corrupt_archive", "/file") for share in (0.1, 0.9)),
]

CASES: list[Case] = uploads("/v1/datasets", _ROWS)  # type: ignore[arg-type]
