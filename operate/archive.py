"""The form of a backup: named files in a folder or in one tar, and a manifest with the digest of each.

The manifest is written last, and folder or tar get their name after that: what has the name is whole.
"""

import hashlib
import io
import json
import os
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from operate.opening import Refused

FORMAT = 1
MANIFEST = "manifest.json"
_CHUNK_BYTES = 1024 * 1024


class Short(Exception):
    """A file ended before its size was reached, or went on after it."""


class Writer:
    """Writes files one after the other and keeps their digests."""

    def __init__(self, place: "_Place") -> None:
        self._place = place
        self.files: dict[str, dict[str, Any]] = {}

    def add(self, name: str, size: int, chunks: Iterator[bytes]) -> str:
        """Write a file of `size` bytes; returns its SHA-256. Raises Short."""
        counted = _Counted(chunks)
        counted.begin()  # what is not there must be found out before anything is written
        self._place.write(name, size, counted)
        if counted.total != size or counted.read(1):
            raise Short(name)
        self.files[name] = {"bytes": size, "sha256": counted.digest.hexdigest()}
        return counted.digest.hexdigest()

    def add_path(self, name: str, path: Path) -> None:
        """Write a copy of a local file."""
        with path.open("rb") as file:
            self.add(name, path.stat().st_size, iter(lambda: file.read(_CHUNK_BYTES), b""))

    def finish(self, facts: dict[str, Any]) -> None:
        """Write the manifest."""
        text = json.dumps({"format": FORMAT, **facts, "files": self.files}, indent=1).encode()
        self._place.write(MANIFEST, len(text), io.BytesIO(text))


@contextmanager
def writing(target: Path) -> Iterator[Writer]:
    """A new backup at `target`: a tar when it ends in .tar, else a folder. Nothing is there when the block raises."""
    if target.exists() and (target.is_file() or any(target.iterdir())):
        raise Refused(f"{target} is there already. Name a new folder, or a file that ends in .tar.")
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    place: _Place = _Tar(part) if target.suffix == ".tar" else _Folder(part)
    try:
        yield Writer(place)
        place.close()
        part.replace(target)
    finally:
        place.close()
        shutil.rmtree(part, ignore_errors=True)
        if part.is_file():
            part.unlink()


class Reader:
    """A backup that is there."""

    def __init__(self, source: Path) -> None:
        """Raises Refused when it is none."""
        self._source = source
        self._tar: tarfile.TarFile | None = None
        if source.is_file():
            try:
                self._tar = tarfile.open(source, "r:")  # noqa: SIM115 - closed by `close`
            except tarfile.TarError:
                raise Refused(f"{source} is no backup: it is not a tar.") from None
        try:
            with self.open(MANIFEST) as file:
                self.manifest: dict[str, Any] = json.loads(file.read())
        except (KeyError, OSError, ValueError, tarfile.TarError):
            self.close()
            raise Refused(f"{source} is no whole backup: it has no readable {MANIFEST}.") from None
        if self.manifest.get("format") != FORMAT:
            self.close()
            raise Refused(f"{source} has format {self.manifest.get('format')}, and this release reads {FORMAT}.")

    def open(self, name: str) -> BinaryIO:
        """A file of the backup. Raises KeyError or OSError when it is not there."""
        if self._tar is None:
            path = (self._source / name).resolve()
            if not path.is_relative_to(self._source.resolve()):
                raise KeyError(name)
            return path.open("rb")
        found = self._tar.extractfile(name)
        if found is None:
            raise KeyError(name)
        return found  # type: ignore[return-value]

    def wrong(self) -> list[str]:
        """Names of files that are not what the manifest says."""
        return [name for name, facts in self.manifest["files"].items() if not self._is_right(name, facts)]

    def close(self) -> None:
        """Close the tar."""
        if self._tar is not None:
            self._tar.close()

    def _is_right(self, name: str, facts: dict[str, Any]) -> bool:
        try:
            with self.open(name) as file:
                digest = hashlib.sha256()
                while chunk := file.read(_CHUNK_BYTES):
                    digest.update(chunk)
        except (KeyError, OSError, tarfile.TarError):
            return False
        return bool(digest.hexdigest() == facts["sha256"])


class _Readable(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...


class _Place(Protocol):
    def write(self, name: str, size: int, source: _Readable) -> None: ...

    def close(self) -> None: ...


class _Folder:
    def __init__(self, path: Path) -> None:
        self._path = path
        path.mkdir(mode=0o700)

    def write(self, name: str, size: int, source: _Readable) -> None:
        path = self._path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            shutil.copyfileobj(source, file, _CHUNK_BYTES)
            file.flush()
            os.fsync(file.fileno())

    def close(self) -> None:
        """Nothing is held open."""


class _Tar:
    def __init__(self, path: Path) -> None:
        self._file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
        self._tar = tarfile.open(fileobj=self._file, mode="w")  # noqa: SIM115 - closed by `close`

    def write(self, name: str, size: int, source: _Readable) -> None:
        info = tarfile.TarInfo(name)
        info.size, info.mode = size, 0o600
        try:
            self._tar.addfile(info, source)
        except OSError as error:
            if error.errno is None:  # tarfile's own: the source ended early
                raise Short(name) from None
            raise

    def close(self) -> None:
        if self._file.closed:
            return
        self._tar.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()


class _Counted:
    """Chunks as a file that is read once, and what was read of it."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks, self._rest = chunks, b""
        self.digest, self.total = hashlib.sha256(), 0

    def begin(self) -> None:
        self._rest = next(self._chunks, b"")

    def read(self, size: int = -1, /) -> bytes:
        while size < 0 or len(self._rest) < size:
            chunk = next(self._chunks, None)
            if chunk is None:
                break
            self._rest += chunk
        given, self._rest = (self._rest, b"") if size < 0 else (self._rest[:size], self._rest[size:])
        self.digest.update(given)
        self.total += len(given)
        return given
