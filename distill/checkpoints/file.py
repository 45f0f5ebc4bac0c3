"""One checkpoint as one file: safetensors whose last tensor is the SHA-256 of every byte before it.

So a file verifies itself, is written in one pass, and is read without running anything that lies in it. It appears
under its name whole and durable, or not at all. https://github.com/huggingface/safetensors#format
"""

import hashlib
import json
import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

FORMAT = "stillhouse-checkpoint/1"
TEMPORARY = ".partial"
_DTYPES = {
    torch.float64: "F64",
    torch.int64: "I64",
    torch.float32: "F32",
    torch.int32: "I32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_DIGEST, _DIGEST_BYTES = "sha256", 32
_READ_BYTES = 1 << 20


class Damaged(ValueError):
    """A file that is not a whole checkpoint. Says why in half a sentence."""


@dataclass(frozen=True)
class State:
    """What a checkpoint holds: plain facts, and tensors by name."""

    facts: dict[str, Any]
    tensors: Mapping[str, Tensor]

    def below(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose names start with `prefix` and a slash, without them."""
        start = f"{prefix}/"
        return {name.removeprefix(start): value for name, value in self.tensors.items() if name.startswith(start)}

    def without(self, prefix: str) -> dict[str, Tensor]:
        """The others, by their whole names."""
        return {name: value for name, value in self.tensors.items() if not name.startswith(f"{prefix}/")}


@dataclass(frozen=True)
class Written:
    """A file as it lies on disk."""

    bytes: int
    sha256: str


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors with `prefix` and a slash before their names."""
    return {f"{prefix}/{name}": value for name, value in tensors.items()}


def write(path: Path, state: State) -> Written:
    """Write a checkpoint to `path`. Raises OSError where the disk refuses; then nothing new lies there."""
    partial = path.with_name(path.name + TEMPORARY)
    try:
        with partial.open("wb") as file:
            digest, size = hashlib.sha256(), 0
            for piece in _pieces(state):
                file.write(piece)
                digest.update(piece)
                size += len(piece)
            trailer = digest.digest()
            file.write(trailer)
            digest.update(trailer)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
    return Written(size + _DIGEST_BYTES, digest.hexdigest())


def read(path: Path) -> State:
    """What `path` holds, every byte of it checked. The tensors are mapped. Raises Damaged."""
    try:
        _verify(path)
        with safe_open(path, "pt") as file:
            notes = json.loads((file.metadata() or {})["stillhouse"])
            if notes["format"] != FORMAT:
                raise Damaged("it is of another version")
            tensors = {name: file.get_tensor(name) for name in file.keys() if name != _DIGEST}  # noqa: SIM118
            return State(notes["facts"], tensors)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise error if isinstance(error, Damaged) else Damaged("it is not a checkpoint") from error


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _verify(path: Path) -> None:
    left = path.stat().st_size - _DIGEST_BYTES
    if left < 0:
        raise Damaged("it is cut short")
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while left > 0 and (piece := file.read(min(left, _READ_BYTES))):
            digest.update(piece)
            left -= len(piece)
        if digest.digest() != file.read():
            raise Damaged("its bytes are not those that were written")


def _pieces(state: State) -> Iterator[bytes | memoryview]:
    """The file from its first byte to the digest. Wide types come first, so that every tensor is aligned."""
    order = list(_DTYPES)
    named = sorted(state.tensors.items(), key=lambda item: order.index(item[1].dtype))
    entries: dict[str, Any] = {
        "__metadata__": {"stillhouse": json.dumps({"format": FORMAT, "facts": state.facts}, allow_nan=False)}
    }
    at = 0
    for name, value in named:
        entries[name] = _entry(_DTYPES[value.dtype], list(value.shape), at, value.nbytes)
        at += value.nbytes
    entries[_DIGEST] = _entry("U8", [_DIGEST_BYTES], at, _DIGEST_BYTES)
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    yield struct.pack("<Q", len(text)) + text
    for _, value in named:
        yield _bytes_of(value)


def _entry(dtype: str, shape: list[int], begin: int, size: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, begin + size]}


def _bytes_of(value: Tensor) -> memoryview:
    """In row-major order, however the tensor lies in memory."""
    return value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
