"""The file kept outputs lie in: safetensors, filled chunk by chunk, and never trusted beyond what its digests cover.

While it is being made it has another name, and its header says how many rows are done and the SHA-256 of them in each
tensor. A maker that is killed leaves a file whose header is right about its first rows, or does not match them, as when
the machine lost power in between: the next maker goes on after the rows that match. The finished file is renamed, and
whoever opens it compares the digests again.
"""

import fcntl
import hashlib
import json
import os
import struct
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from torch import Tensor

from distill.mapped import Mapping
from distill.teacher_outputs.layout import Layout

_DTYPES = {"torch.float32": "F32", "torch.int16": "I16", "torch.int32": "I32"}
_READ_BYTES = 1 << 20
_ALIGNED = 64


@dataclass(frozen=True)
class Progress:
    """How far a file is."""

    done: int
    """Rows."""
    sha256: dict[str, str]
    """Of these rows, tensor by tensor."""


def partial_name(path: Path) -> Path:
    """Where a file lies until it is whole."""
    return path.with_name(f".{path.name}.partial")


def open_whole(path: Path, key: str, layout: Layout) -> Mapping | None:
    """A finished file mapped; None when there is none, or it is damaged or another one."""
    try:
        mapping = Mapping(path)
        with path.open("rb") as file:
            found = _progress(file, key, layout)
            whole = found is not None and found.done == layout.total
            return mapping if whole and found is not None and _digests(file, found, key, layout) else None
    except (OSError, ValueError):
        return None


class Maker:
    """A file being made. Raises OSError where the disk refuses, or another maker is at it."""

    def __init__(self, path: Path, key: str, layout: Layout) -> None:
        """Take up what an earlier maker has left at `path`, or begin."""
        self._path, self._key, self._layout = path, key, layout
        self._partial = partial_name(path)
        self._file = os.fdopen(os.open(self._partial, os.O_CREAT | os.O_RDWR, 0o600), "r+b", buffering=0)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise
        try:
            self._take_up()
        except OSError:
            self.drop()
            self._file.close()
            raise

    def _take_up(self) -> None:
        found = _progress(self._file, self._key, self._layout)
        self._hashes = None if found is None else _digests(self._file, found, self._key, self._layout)
        self.done = found.done if found is not None and self._hashes else 0
        self._start = len(_header(Progress(0, {}), self._key, self._layout))
        if not self.done or self._hashes is None:
            self._hashes = {name: hashlib.sha256() for name in self._layout.tensors}
            self._file.truncate(0)
            # A disk that is too full says so now, before the teacher has run.
            os.posix_fallocate(self._file.fileno(), 0, self._start + self._layout.nbytes)
            self._note()

    def add(self, chunk: dict[str, Tensor]) -> None:
        """Append the next rows."""
        assert self._hashes is not None
        rows = 0
        for name, first, row_bytes in self._layout.places():
            content = chunk[name].numpy().tobytes()
            _write_all(self._file, content, self._start + first + self.done * row_bytes)
            self._hashes[name].update(content)
            rows = len(chunk[name])
        self.done += rows
        self._note()

    def so_far(self) -> Mapping:
        """The rows that are done, mapped."""
        return Mapping(self._partial)

    def finish(self) -> None:
        """Make it durable and give it its name."""
        os.fsync(self._file.fileno())
        self._partial.replace(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def drop(self) -> None:
        """Leave nothing behind."""
        with suppress(OSError):
            self._partial.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def _note(self) -> None:
        assert self._hashes is not None
        digests = {name: found.hexdigest() for name, found in self._hashes.items()}
        _write_all(self._file, _header(Progress(self.done, digests), self._key, self._layout), 0)


def _header(progress: Progress, key: str, layout: Layout) -> bytes:
    """Of the same length whatever the progress."""
    digests = {name: progress.sha256.get(name, "0" * 64) for name in layout.tensors}
    notes = {"format": "stillhouse-teacher-outputs/1", "key": key, "done": f"{progress.done:015}", "sha256": digests}
    entries: dict[str, Any] = {"__metadata__": {"stillhouse": json.dumps(notes)}}
    for name, first, row_bytes in layout.places():
        dtype, width = layout.tensors[name]
        entries[name] = {
            "dtype": _DTYPES[str(dtype)],
            "shape": [layout.total, width],
            "data_offsets": [first, first + layout.total * row_bytes],
        }
    text = json.dumps(entries).encode()
    text += b" " * (-(8 + len(text)) % _ALIGNED)
    return struct.pack("<Q", len(text)) + text


def _progress(file: BinaryIO, key: str, layout: Layout) -> Progress | None:
    """What the header says; None when it is not that of these outputs."""
    length = len(_header(Progress(0, {}), key, layout))
    file.seek(0)
    found = file.read(length)
    try:
        (size,) = struct.unpack("<Q", found[:8])
        notes = json.loads(json.loads(found[8 : 8 + size])["__metadata__"]["stillhouse"])
        progress = Progress(int(notes["done"]), {name: notes["sha256"][name] for name in layout.tensors})
    except (struct.error, ValueError, KeyError, TypeError, RecursionError):
        return None
    same = found == _header(progress, key, layout)
    return progress if same and 0 <= progress.done <= layout.total else None


def _digests(file: BinaryIO, progress: Progress, key: str, layout: Layout) -> dict[str, Any] | None:
    """The running digests of the rows that are done; None when those of the header are others."""
    start = len(_header(progress, key, layout))
    found = {}
    for name, first, row_bytes in layout.places():
        file.seek(start + first)
        found[name] = _digest(file, progress.done * row_bytes)
    return found if {name: one.hexdigest() for name, one in found.items()} == progress.sha256 else None


def _digest(file: BinaryIO, count: int) -> Any:
    found = hashlib.sha256()
    while count > 0 and (block := file.read(min(count, _READ_BYTES))):
        found.update(block)
        count -= len(block)
    return found


def _write_all(file: BinaryIO, content: bytes, place: int) -> None:
    view = memoryview(content)
    while view:
        written = os.pwrite(file.fileno(), view, place)
        view, place = view[written:], place + written
