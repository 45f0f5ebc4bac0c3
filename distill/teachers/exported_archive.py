"""The archive of torch.export.save, read without it: plain JSON and plain bytes of tensors, never a pickle."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any
from zipfile import ZipFile, ZipInfo

import torch
from torch import Tensor

from distill.teachers.exported_graph import DTYPES
from distill.teachers.package import parsed
from stillhouse.spec.archive import BROKEN, checked_archive, files, member_pointer
from stillhouse.spec.limits import Limits
from stillhouse.spec.refusing import invalid, pointer, quoted

_JSON_BYTES = 256 * 1024**2
_PAYLOAD = re.compile(r"(weight|tensor)_\d+")
_HINT = "Save it with torch.export.save of a current torch, the program alone."
_KNOWN = re.compile(
    r"models/model\.json|data/(weights/weight_\d+|constants/tensor_\d+)|"
    r"data/(weights/model_weights|constants/model_constants)_config\.json|data/sample_inputs/model\.pt|"
    r"archive_format|archive_version|byteorder|\.data/(version|serialization_id)|extra/[\w.\-]+"
)
"""Sample inputs are a pickle and are never opened; extra files are never read."""


@dataclass(frozen=True)
class Exported:
    """A program and its tensors."""

    graph: dict[str, Any]
    tensors: dict[str, Tensor]
    """By the names its signature uses, views of what is stored."""
    numbers: int
    """Numbers stored in all of them."""


def unpacked(path: Path, limits: Limits) -> Exported:
    """Raises InvalidData or TooLarge, naming the member, for an archive that is broken or holds anything else."""
    with checked_archive(path, limits) as archive:
        members = _members(archive)
        graph = _json(archive, _needed(members, "models/model.json"))
        if _bytes(archive, _needed(members, "byteorder")).strip() != b"little":
            raise invalid("/file", "corrupt_program", "The program was saved on a big-endian machine.", _HINT)
        storages: dict[str, Tensor] = {}
        tensors: dict[str, Tensor] = {}
        for kind in ("weights", "constants"):
            member = _needed(members, f"data/{kind}/model_{kind}_config.json")
            for name, entry in _payloads(_json(archive, member), member):
                record = _needed(members, f"data/{kind}/{_payload(name, entry)}")
                tensors[name] = _tensor(name, entry["tensor_meta"], archive, record, storages)
    return Exported(graph, tensors, sum(storage.numel() for storage in storages.values()))


def _members(archive: ZipFile) -> dict[str, ZipInfo]:
    everything = {member.filename: member for member in files(archive)}
    tops = {name.partition("/")[0] for name in everything}
    members = {name.partition("/")[2]: member for name, member in everything.items()}
    if len(tops) != 1:
        raise invalid("/file", "corrupt_program", "The archive is not what torch.export.save writes.", _HINT)
    for name, member in members.items():
        if not _KNOWN.fullmatch(name):
            compiled = "aotinductor" in name
            detail = f"The archive holds {quoted(name)}"
            detail += ", compiled code, which is never run." if compiled else ", which no exported program has."
            raise invalid(member_pointer(member), "custom_code" if compiled else "corrupt_program", detail, _HINT)
    return members


def _needed(members: Mapping[str, ZipInfo], name: str) -> ZipInfo:
    if name not in members:
        raise invalid("/file", "corrupt_program", f"The archive has no {quoted(name)}.", _HINT)
    return members[name]


def _json(archive: ZipFile, member: ZipInfo) -> dict[str, Any]:
    if member.file_size > _JSON_BYTES:
        detail = f"{quoted(member.filename)} has {member.file_size:,} bytes, more than any program needs."
        raise invalid(member_pointer(member), "corrupt_program", detail)
    return parsed(_bytes(archive, member), member_pointer(member), quoted(member.filename))


def _bytes(archive: ZipFile, member: ZipInfo) -> bytes:
    try:
        return archive.read(member)
    except BROKEN:
        detail = f"{quoted(member.filename)} is broken, or unfolds to another size than it says."
        raise invalid(member_pointer(member), "corrupt_member", detail, "Save the program anew.") from None


def _payloads(config: dict[str, Any], member: ZipInfo) -> Iterable[tuple[str, dict[str, Any]]]:
    entries = config.get("config")
    if not isinstance(entries, dict) or not all(isinstance(entry, dict) for entry in entries.values()):
        detail = f"{quoted(member.filename)} does not list tensors."
        raise invalid(member_pointer(member), "corrupt_program", detail, _HINT)
    return entries.items()


def _payload(name: str, entry: Mapping[str, Any]) -> str:
    at, path = pointer("tensors", name), entry.get("path_name")
    if entry.get("use_pickle") is not False:
        detail = f"{quoted(name)} is saved as a pickle, and objects are never made from an upload."
        raise invalid(at, "unsafe_pickle", detail, "Export a module whose weights are plain tensors.")
    if not isinstance(path, str) or not _PAYLOAD.fullmatch(path):
        detail = f"{quoted(name)} lies in {quoted(str(path))}, which is no place for a tensor."
        raise invalid(at, "custom_op", detail, "Export a module without objects of its own.")
    return path


def _tensor(name: str, meta: Any, archive: ZipFile, record: ZipInfo, storages: dict[str, Tensor]) -> Tensor:
    """The tensor as it lies in its storage, which several may share."""
    try:
        dtype = DTYPES[meta["dtype"]]
        size = [int(part["as_int"]) for part in meta["sizes"]]
        stride = [int(part["as_int"]) for part in meta["strides"]]
        offset = int(meta["storage_offset"]["as_int"])
        if record.filename not in storages:
            data = bytearray(_bytes(archive, record))
            storages[record.filename] = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
        storage = storages[record.filename]
        if storage.dtype != dtype or not _inside(size, stride, offset, storage.numel()):
            raise ValueError
        return storage.as_strided(size, stride, offset)
    except (KeyError, TypeError, ValueError, RuntimeError):
        detail = f"The shape and type of {quoted(name)} contradict the bytes that are stored for it."
        raise invalid(pointer("tensors", name), "corrupt_tensors", detail, _HINT) from None


def _inside(size: list[int], stride: list[int], offset: int, numbers: int) -> bool:
    if len(size) != len(stride) or min([*size, *stride, offset], default=0) < 0:
        return False
    if 0 in size:
        return True
    if prod(size) > numbers:  # one number shown many times over would take memory once it is used
        return False
    return offset + sum((sides - 1) * step for sides, step in zip(size, stride, strict=True)) < numbers
