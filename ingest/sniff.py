"""What a file is, by its first bytes. Its name says nothing, and what the caller says is only checked."""

import re
import zipfile
from pathlib import Path

from stillhouse.spec.archive import BROKEN
from stillhouse.spec.limits import Limits
from stillhouse.spec.refusing import invalid, too_large, unsupported
from stillhouse.spec.upload import UploadFormat

_ZIP = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")
_OTHERS: tuple[tuple[bytes, str, str], ...] = (
    (b"\x1f\x8b", "gzip", "Unpack it first."),
    (b"BZh91AY", "bzip2", "Unpack it first."),
    (b"\xfd7zXZ\x00", "xz", "Unpack it first."),
    (b"\x28\xb5\x2f\xfd", "Zstandard", "Unpack it first."),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "Pack it as ZIP."),
    (b"Rar!\x1a\x07", "a RAR archive", "Pack it as ZIP."),
    (b"\x93NUMPY", "a single .npy array", "Save x and y together with numpy.savez."),
    (b"\x89HDF\r\n\x1a\n", "HDF5", "Save x and y with numpy.savez."),
    (b"ARROW1\x00\x00", "Arrow IPC", "Write it as Parquet."),
    (b"Obj\x01", "Avro", "Write it as Parquet."),
    (b"SQLite format 3\x00", "SQLite", "Export the table as CSV."),
    (b"%PDF-", "a PDF", "Upload the data itself."),
    (b"\xd0\xcf\x11\xe0", "an old Office file", "Save the sheet as CSV."),
    (b"\x89PNG\r\n\x1a\n", "one PNG image", "Pack images into a ZIP with one folder per class."),
    (b"\xff\xd8\xff", "one JPEG image", "Pack images into a ZIP with one folder per class."),
    (b"GIF87a", "one GIF image", "Pack PNG or JPEG images into a ZIP with one folder per class."),
    (b"GIF89a", "one GIF image", "Pack PNG or JPEG images into a ZIP with one folder per class."),
    (b"\x80\x02", "a pickle", "Pickles are never loaded; save x and y with numpy.savez."),
    (b"\x80\x03", "a pickle", "Pickles are never loaded; save x and y with numpy.savez."),
    (b"\x80\x04", "a pickle", "Pickles are never loaded; save x and y with numpy.savez."),
    (b"\x80\x05", "a pickle", "Pickles are never loaded; save x and y with numpy.savez."),
)
_SAFETENSORS_HEADER_BYTES = 100_000_000  # more is no safetensors, as its own library says
_OBJECT = re.compile(rb"\{\s*[\"}]")  # a brace alone may begin the first name of a CSV header
_READ = "CSV, JSON lines, Parquet, .npz, or a ZIP of class folders with PNG or JPEG images"
_NAMES = {"csv": "CSV", "jsonl": "JSON lines", "parquet": "Parquet", "npz": "an .npz file", "zip": "a ZIP archive"}


def sniff(path: Path, declared: str, limits: Limits) -> UploadFormat:
    """The format of the file at `path`.

    Raises TooLarge above the upload limit, InvalidData for an empty file, UnsupportedMedia for a format that is not
    read and for one that differs from what was declared (`auto` declares nothing).
    """
    size = path.stat().st_size
    if size > limits.max_upload_bytes:
        detail = f"The file has {size:,} bytes, the limit is {limits.max_upload_bytes:,}."
        raise too_large("/file", "too_many_bytes", detail)
    if size == 0:
        raise invalid("/file", "empty_file", "The file is empty.")
    found = _format(path, declared)
    if declared not in ("auto", found):
        detail = f"The file was declared as {declared}, but its bytes are {_NAMES[found]}."
        raise unsupported("?format", "format_mismatch", detail, f"Say format={found}, or leave format out.")
    return found


def _format(path: Path, declared: str) -> UploadFormat:
    with path.open("rb") as file:
        head = file.read(512)
        file.seek(max(0, path.stat().st_size - 4))
        tail = file.read(4)
    if head.startswith(_ZIP):
        return "npz" if _holds_arrays(path) else "zip"
    if _is_parquet(head, tail, b"PAR1"):
        return "parquet"
    if _is_parquet(head, tail, b"PARE"):
        raise _not_read("an encrypted Parquet file", "Write it without encryption.")
    for magic, name, hint in _OTHERS:
        if head.startswith(magic):
            raise _not_read(name, hint)
    if 0 < int.from_bytes(head[:8], "little") < _SAFETENSORS_HEADER_BYTES and head[8:9] == b"{":
        raise _not_read("safetensors", "Weights go to POST /v1/models; save data x and y with numpy.savez.")
    if head[257:262] == b"ustar":
        raise _not_read("a tar archive", "Pack it as ZIP.")
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if _OBJECT.match(text) or (text.startswith(b"{") and declared in ("auto", "jsonl")):
        return "jsonl"
    if declared == "auto" and text.startswith(b"["):
        raise _not_read("JSON", "Write one object on each line (JSON lines), or say format=csv if it is CSV.")
    # CSV has no magic: what is left is CSV or nothing, and its reader says which byte is not text.
    if declared in ("auto", "csv"):
        return "csv"
    raise unsupported("?format", "format_mismatch", f"The bytes are not {_NAMES[declared]}.", f"Read are {_READ}.")


def _holds_arrays(path: Path) -> bool:
    """True when the archive holds .npy arrays; a broken archive is left to its reader."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except BROKEN:
        return False
    return any(name.endswith(".npy") for name in names)


def _is_parquet(head: bytes, tail: bytes, magic: bytes) -> bool:
    """A table may have a column PAR1, but only a Parquet file ends as it began, or goes on with what is no text."""
    follows = head[4:5].decode("latin-1")
    return head.startswith(magic) and (tail == magic or not (follows.isascii() and follows.isprintable()))


def _not_read(name: str, hint: str) -> Exception:
    return unsupported("/file", "unsupported_format", f"This is {name}; read are {_READ}.", hint)
