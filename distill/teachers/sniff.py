"""What an uploaded teacher is, by its bytes. Its name says nothing, and what the caller says is only checked."""

import struct
import zipfile
from pathlib import Path, PurePosixPath
from typing import Literal

from stillhouse.spec.archive import BROKEN
from stillhouse.spec.limits import Limits
from stillhouse.spec.refusing import invalid, too_large, unsupported
from stillhouse.spec.teachers import TeacherFormat

Content = Literal["folder", "pickled", "safetensors", "onnx", "onnx-folder", "torch-export"]

_ZIP = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")
_PICKLE = tuple(bytes([0x80, protocol]) for protocol in range(2, 6))
_ONNX = (b"\x08", b"\x12", b"\x1a", b"\x22", b"\x3a", b"\x42")
"""First bytes a protobuf of ONNX can have: the tags of its fields, in the order writers have."""
_OTHERS: tuple[tuple[bytes, str, str], ...] = (
    (b"\x1f\x8b", "gzip", "Unpack it, and pack a folder as ZIP."),
    (b"BZh91AY", "bzip2", "Unpack it, and pack a folder as ZIP."),
    (b"\xfd7zXZ\x00", "xz", "Unpack it, and pack a folder as ZIP."),
    (b"\x28\xb5\x2f\xfd", "Zstandard", "Unpack it, and pack a folder as ZIP."),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "Pack the folder as ZIP."),
    (b"Rar!\x1a\x07", "a RAR archive", "Pack the folder as ZIP."),
    (b"\x89HDF\r\n\x1a\n", "HDF5, as Keras writes it", "Export the model to ONNX with tf2onnx."),
    (b"GGUF", "GGUF", "Classifiers are read as safetensors, .pth, ONNX or torch.export programs."),
    (b"\x93NUMPY", "a NumPy array", "Upload the model, not its outputs."),
)
_READ = (
    "a ZIP of config.json and model.safetensors, .safetensors, .pth, .onnx, a ZIP of .onnx and its data files, and "
    ".pt2 of torch.export"
)


def sniff(path: Path, limits: Limits) -> Content:
    """Raises TooLarge above the upload limit, InvalidData for an empty file, UnsupportedMedia for other formats."""
    size = path.stat().st_size
    if size > limits.max_upload_bytes:
        detail = f"The file has {size:,} bytes, the limit is {limits.max_upload_bytes:,}."
        raise too_large("/file", "too_many_bytes", detail)
    if size == 0:
        raise invalid("/file", "empty_file", "The file is empty.")
    with path.open("rb") as file:
        head = file.read(16)
    for magic, name, hint in _OTHERS:
        if head.startswith(magic):
            raise unsupported("/file", "unsupported_format", f"The file is {name}, which is not read.", hint)
    if head.startswith(_ZIP):
        return _zipped(path)
    if head.startswith(_PICKLE):
        return "pickled"
    if _is_safetensors(head):
        return "safetensors"
    if head.startswith(_ONNX):
        return "onnx"
    raise unsupported("/file", "unsupported_format", "The file is of a format that is not read.", f"Upload {_READ}.")


def check_declared(declared: str, found: TeacherFormat) -> None:
    """Raises UnsupportedMedia when the caller says something else."""
    if declared not in ("auto", found):
        detail = f"The file is said to be of format {declared}, and is {found}."
        raise unsupported("/options/format", "format_mismatch", detail, f"Set format to {found}, or leave it out.")


def _is_safetensors(head: bytes) -> bool:
    """Eight bytes of length, then JSON. A length that cannot be is judged by who reads the header."""
    if len(head) < 9 or head[8:9] != b"{":
        return False
    (length,) = struct.unpack("<Q", head[:8])
    return bool(length >= 2)


def _zipped(path: Path) -> Content:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except BROKEN:
        detail = "The archive cannot be read: its directory, at the end of the file, is broken or missing."
        raise invalid("/file", "corrupt_archive", detail, "Is the upload complete? Write it anew.") from None
    inner = {name.partition("/")[2] for name in names}
    if any(name.startswith("code/") for name in inner) and "constants.pkl" in inner:
        detail = "The file is a TorchScript program, which is code and is not read."
        hint = "Save it with torch.export.save(torch.export.export(model, (rows,)), 'model.pt2') instead."
        raise unsupported("/file", "torchscript", detail, hint)
    if "archive_format" in inner:
        return "torch-export"
    if "serialized_exported_program.json" in {*names, *inner}:
        detail = "The program was saved by torch.export of 2.7 or earlier, in an older format that is not read."
        raise unsupported("/file", "unsupported_format", detail, "Save it anew with a current torch.")
    if _holds(names, ".onnx") and not _holds(names, ".safetensors"):
        return "onnx-folder"
    folder = any(PurePosixPath(name).name == "config.json" for name in names)
    return "pickled" if "data.pkl" in inner and not folder else "folder"


def _holds(names: list[str], suffix: str) -> bool:
    return any(name.lower().endswith(suffix) and not name.startswith("__MACOSX/") for name in names)
