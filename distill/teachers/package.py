"""A ZIP of a model's folder: what is needed of it, under names of our own. And members of any archive, as they are."""

import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from zipfile import ZipFile, ZipInfo

from stillhouse.spec.archive import BROKEN, checked_archive, files, member_pointer
from stillhouse.spec.limits import Limits
from stillhouse.spec.refusing import invalid, quoted, some

CONFIG = "config.json"
PROCESSOR = "preprocessor_config.json"
INDEX = "model.safetensors.index.json"
_JSON_BYTES = 4 * 1024**2
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Package:
    """The parts of a folder that say what a model is."""

    config: dict[str, Any]
    processor: dict[str, Any] | None
    """How images are prepared, in the words of transformers."""
    weights: tuple[Path, ...]
    """Safetensors files, unpacked under numbers."""


def unpacked(path: Path, folder: Path, limits: Limits) -> Package:
    """Read the archive at `path`; its weights go to `folder`, as 0.safetensors and so on.

    Raises InvalidData and TooLarge, naming the member, for everything `checked_archive` refuses, for JSON that is
    none, and when config.json or the weights are missing.
    """
    with checked_archive(path, limits) as archive:
        members = _of_the_folder(archive)
        config = _json(archive, members[CONFIG])
        processor = _json(archive, members[PROCESSOR]) if PROCESSOR in members else None
        shards = _shards(archive, members)
        weights = tuple(
            extracted(archive, member, folder / f"{number}.safetensors") for number, member in enumerate(shards)
        )
    return Package(config, processor, weights)


def content(archive: ZipFile, member: ZipInfo) -> bytes:
    """The bytes of a member. Raises InvalidData when it is broken."""
    data: list[bytes] = []
    _copy(archive, member, data.append)
    return b"".join(data)


def extracted(archive: ZipFile, member: ZipInfo, to: Path) -> Path:
    """The new file `to` with the bytes of a member. Raises InvalidData when it is broken."""
    with to.open("xb") as out:
        _copy(archive, member, out.write)
    return to


def parsed(data: bytes, at: str, name: str) -> dict[str, Any]:
    """A JSON object from a stranger. Raises InvalidData at the pointer `at`."""
    reason = ""
    try:
        content = json.loads(data.decode("utf-8"))
    except UnicodeDecodeError:
        reason = "it is not UTF-8"
    except RecursionError:
        reason = "it is nested too deeply"
    except ValueError:
        reason = "it is not JSON"
    if not reason and isinstance(content, dict):
        return content
    detail = f"{name} cannot be used: {reason or 'it is no JSON object'}."
    raise invalid(at, "corrupt_config", detail, "Write it with save_pretrained, or with json.dump.")


def _of_the_folder(archive: ZipFile) -> dict[str, ZipInfo]:
    """Members beside config.json, by name. The folder may be packed with or without its own name."""
    everything = {member.filename: member for member in files(archive)}
    found = [name for name in everything if PurePosixPath(name).name == CONFIG and not name.startswith("__MACOSX/")]
    if not found:
        detail = f"The archive has no {CONFIG}, which says what the network is."
        hint = "Pack the folder save_pretrained wrote, or an ONNX graph with its data files; a checkpoint or a .pt2 is "
        hint += "uploaded unpacked."
        raise invalid("/file", "missing_member", detail, hint)
    top = min(found, key=lambda name: name.count("/"))
    if sum(name.count("/") == top.count("/") for name in found) > 1:
        detail = f"The archive has several {CONFIG}: {some(sorted(map(quoted, found)))}."
        raise invalid("/file", "several_models", detail, "Pack the folder of one model.")
    home = top.removesuffix(CONFIG)
    return {name.removeprefix(home): member for name, member in everything.items() if name.startswith(home)}


def _shards(archive: ZipFile, members: dict[str, ZipInfo]) -> list[ZipInfo]:
    if "model.safetensors" in members:
        return [members["model.safetensors"]]
    if INDEX in members:
        return _indexed(archive, members)
    plain = [name for name in members if name.endswith(".safetensors") and "/" not in name]
    if len(plain) == 1:
        return [members[plain[0]]]
    pickles = [name for name in members if name.endswith((".bin", ".pt", ".pth", ".ckpt", ".h5"))]
    detail = "The archive has no model.safetensors, the weights."
    if pickles:
        detail = f"The archive has its weights as {some(sorted(map(quoted, pickles)))} and not as model.safetensors."
    hint = "Save the model with save_pretrained of a current transformers, which writes safetensors."
    raise invalid("/file", "missing_member", detail, hint)


def _indexed(archive: ZipFile, members: dict[str, ZipInfo]) -> list[ZipInfo]:
    entry = members[INDEX]
    places = _json(archive, entry).get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(name, str) for name in places.values()):
        detail = f"{INDEX} has no weight_map from tensors to files."
        raise invalid(member_pointer(entry), "corrupt_config", detail, "Save the model anew.")
    names = sorted(set(places.values()))
    if absent := [name for name in names if name not in members or not name.endswith(".safetensors")]:
        lacks = some(list(map(quoted, absent)))
        detail = f"The weights are spread over {len(names)} files, and the archive lacks {lacks}."
        raise invalid("/file", "missing_member", detail, "Pack all files of the folder.")
    return [members[name] for name in names]


def _json(archive: ZipFile, member: ZipInfo) -> dict[str, Any]:
    if member.file_size > _JSON_BYTES:
        detail = f"{quoted(member.filename)} has {member.file_size:,} bytes, more than any such file needs."
        raise invalid(member_pointer(member), "corrupt_config", detail)
    return parsed(content(archive, member), member_pointer(member), quoted(member.filename))


def _copy(archive: ZipFile, member: ZipInfo, write: Callable[[bytes], object]) -> None:
    try:
        with archive.open(member) as source:
            while chunk := source.read(_CHUNK):
                write(chunk)
    except (*BROKEN, zlib.error) as error:
        # The disk's own errors have a number, those of the archive have none.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        detail = f"{quoted(member.filename)} is broken, or unfolds to another size than it says."
        raise invalid(member_pointer(member), "corrupt_member", detail, "Pack the archive anew.") from None
