"""ZIP archives from strangers: the directory is judged as a whole before any member is opened.

Nothing is ever unpacked to a path: members are read, by handle, into memory. What a member yields is bounded by the
size its directory entry declares (Python's reader stops there and then finds a wrong checksum), and the declared
sizes are bounded together, so lying about them gains nothing.
"""

import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stillhouse.spec.errors import FieldError
from stillhouse.spec.limits import Limits
from stillhouse.spec.refusing import all_invalid, invalid, pointer, quoted, too_large

BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    OSError,
)
"""What Python's reader raises on broken or hostile archives."""

_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED_FLAG = 0x1
_LOCAL_HEADER_BYTES = 30
# Below this size a high ratio is an array of zeros, not a bomb.
_HARMLESS_BYTES = 16 * 1024**2
_PACK_HINT = "Pack plain files under relative names, without encryption."


@contextmanager
def checked_archive(path: Path, limits: Limits) -> Iterator[zipfile.ZipFile]:
    """The archive at `path`, open for reading, once its directory has passed.

    Raises InvalidData for broken archives and for unsafe, encrypted, doubled, overlapping or special members,
    TooLarge for more members or bytes than the limits.
    """
    try:
        archive = zipfile.ZipFile(path)
    except BROKEN:
        detail = "The archive cannot be read: its directory, at the end of the file, is broken or missing."
        raise invalid("/file", "corrupt_archive", detail, "Is the upload complete? Pack it anew.") from None
    with archive:
        members = archive.infolist()
        _check_sizes(members, limits)
        errors = [error for member in members if (error := _objection(member))]
        errors += _doubled(members)
        if errors:
            count = "1 member" if len(errors) == 1 else f"{len(errors):,} members"
            raise all_invalid(f"{count} of the archive cannot be accepted.", errors, _PACK_HINT)
        _check_overlap(members, archive.start_dir)
        yield archive


def files(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """Members that are files."""
    return [member for member in archive.infolist() if not member.is_dir()]


def member_pointer(member: zipfile.ZipInfo) -> str:
    """Where the member stands, as a pointer."""
    return pointer("members", member.filename)


def _check_sizes(members: list[zipfile.ZipInfo], limits: Limits) -> None:
    if len(members) > limits.max_archive_members:
        detail = f"The archive has {len(members):,} members, the limit is {limits.max_archive_members:,}."
        raise too_large("/file", "too_many_members", detail)
    packed = sum(member.compress_size for member in members)
    unpacked = sum(member.file_size for member in members)
    if unpacked > limits.max_expanded_bytes:
        detail = f"The archive unfolds to {unpacked:,} bytes, the limit is {limits.max_expanded_bytes:,}."
        raise too_large("/file", "too_many_bytes", detail)
    if unpacked > _HARMLESS_BYTES and unpacked > limits.max_compression_ratio * packed:
        detail = (
            f"The archive unfolds from {packed:,} to {unpacked:,} bytes, "
            f"more than the limit of {limits.max_compression_ratio:g} times."
        )
        raise too_large("/file", "compression_ratio", detail, "Pack it with less compression, or store it.")


def _objection(member: zipfile.ZipInfo) -> FieldError | None:
    name = member.orig_filename
    kind = stat.S_IFMT(member.external_attr >> 16)
    if _is_unsafe(name):
        code, detail = "unsafe_name", f"The name {quoted(name)} is not a plain relative path."
    elif kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        code, detail = "special_member", f"{quoted(name)} is a link or device, not a file."
    elif member.flag_bits & _ENCRYPTED_FLAG:
        code, detail = "encrypted_member", f"{quoted(name)} is encrypted."
    elif member.compress_type not in _METHODS:
        code, detail = "unsupported_compression", f"{quoted(name)} is neither stored nor deflated."
    else:
        return None
    return FieldError(pointer=pointer("members", name), code=code, detail=detail)


def _is_unsafe(name: str) -> bool:
    """True for names that some unpacker, somewhere, would let out of its folder or could not show."""
    parts = name.removesuffix("/").split("/")
    return (
        "\\" in name
        or not name.isprintable()
        or len(name) > 1000
        or any(part in ("", ".", "..") for part in parts)
        or (len(parts[0]) >= 2 and parts[0][1] == ":")
    )


def _doubled(members: list[zipfile.ZipInfo]) -> list[FieldError]:
    seen: set[str] = set()
    errors = []
    for member in members:
        name = member.filename.removesuffix("/")
        if name in seen:
            detail = f"{quoted(name)} is in the archive twice."
            errors.append(FieldError(pointer=pointer("members", name), code="duplicate_member", detail=detail))
        seen.add(name)
    return errors


def _check_overlap(members: list[zipfile.ZipInfo], directory_start: int) -> None:
    """Members that share bytes unfold without end from a small file (David Fifield, A better zip bomb, 2019)."""
    ordered = sorted(members, key=lambda member: member.header_offset)
    starts = [*(member.header_offset for member in ordered), directory_start][1:]
    for member, next_start in zip(ordered, starts, strict=True):
        if member.header_offset + _LOCAL_HEADER_BYTES + member.compress_size > next_start:
            detail = f"{quoted(member.filename)} overlaps another part of the archive."
            raise invalid(member_pointer(member), "overlapping_members", detail, "Pack the archive anew.")
