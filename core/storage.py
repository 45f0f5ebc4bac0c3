"""Files of the service: datasets and artifacts, by key. A local folder, or an object store through obstore."""

import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, Protocol
from urllib.parse import unquote, urlparse
from uuid import uuid4

import obstore
from obstore.exceptions import BaseError
from obstore.store import from_url

from core.settings import Settings
from stillhouse.spec.errors import NotFound, Unavailable

CHUNK_BYTES = 1024 * 1024
_TEMPORARY = re.compile(r"\..+\.part|\.probe-\w+")
# An object store that stands still this long, or is not reached in so many tries, is away. Callers with time to spare
# try again by themselves; the others say so to whoever waits for them.
_STALL = timedelta(seconds=30)
_CONNECT = timedelta(seconds=5)
_RETRIES: Any = {
    "max_retries": 4,
    "retry_timeout": timedelta(seconds=20),
    "backoff": {"init_backoff": timedelta(seconds=0.2), "max_backoff": timedelta(seconds=2), "base": 2},
}
# A whole request may take as long as its bytes need: a large file, or a reader who is slow.
_WHOLE_REQUEST = timedelta(days=1)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A file as the storage lists it."""

    key: str
    bytes: int
    modified: datetime
    temporary: bool
    """Half-written: it gets its real name, or is left by a process that died."""


class Storage(Protocol):
    """Keys are made by the server (`projects/…`), never by a caller."""

    def put(self, key: str, source: Path) -> None:
        """Store a copy of `source`, durable and whole or not at all."""

    def read(self, key: str, *, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Yield the bytes from `start` up to `end` (exclusive). Raises NotFound."""

    def fetch(self, key: str, cache: Path) -> Path:
        """A local path of the file to read from; may be the stored file itself, or a copy below `cache`."""

    def size(self, key: str) -> int | None:
        """Bytes of a file; None when it is not there."""

    def entries(self) -> Iterator[Entry]:
        """All files, in no order; those that come or go meanwhile may be among them."""

    def move(self, key: str, to: str) -> None:
        """Give a file another key; a missing one is no error."""

    def delete(self, key: str) -> None:
        """Remove one file; a missing one is no error."""

    def delete_prefix(self, prefix: str) -> None:
        """Remove all files below `prefix/`."""

    def check(self) -> None:
        """Write, read and delete a small file. Raises Unavailable."""


def make_storage(settings: Settings) -> Storage:
    """The storage the settings name."""
    url = urlparse(settings.resolved_storage_url)
    if url.scheme == "file":
        return LocalStorage(Path(unquote(url.path)))
    return ObjectStorage(settings.resolved_storage_url, endpoint=settings.storage_endpoint)


def sha256_of(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class LocalStorage:
    """Files below one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(self, key: str, source: Path) -> None:
        """Copy under a temporary name, sync, rename, sync the folder: a crash leaves the old state or the new."""
        target = self._path(key)
        part = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            with source.open("rb") as src, _opened_below(part) as dst:
                shutil.copyfileobj(src, dst, CHUNK_BYTES)
                dst.flush()
                os.fsync(dst.fileno())
            part.replace(target)
            _sync_folder(target.parent)
        except OSError as error:
            with suppress(OSError):  # what kept it from being written may keep it from being removed
                part.unlink(missing_ok=True)
            raise Unavailable("The storage could not keep a file.", hint="Free disk space, then try again.") from error

    def read(self, key: str, *, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Yield chunks of the file."""
        try:
            file = self._path(key).open("rb")
        except FileNotFoundError as error:
            raise NotFound("The file is no longer in the storage.") from error
        with file:
            file.seek(start)
            left = None if end is None else end - start
            while left is None or left > 0:
                chunk = file.read(CHUNK_BYTES if left is None else min(CHUNK_BYTES, left))
                if not chunk:
                    return
                left = None if left is None else left - len(chunk)
                yield chunk

    def fetch(self, key: str, cache: Path) -> Path:
        """The stored file itself: readers map it, nobody writes it."""
        path = self._path(key)
        if not path.is_file():
            raise NotFound("The file is no longer in the storage.")
        return path

    def size(self, key: str) -> int | None:
        """Bytes of the file."""
        try:
            return self._path(key).stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return None

    def entries(self) -> Iterator[Entry]:
        """Walk the folder."""
        for folder, _, names in os.walk(self.root):
            for name in names:
                path = Path(folder) / name
                with suppress(FileNotFoundError):
                    found = path.stat()
                    yield Entry(
                        key=path.relative_to(self.root).as_posix(),
                        bytes=found.st_size,
                        modified=datetime.fromtimestamp(found.st_mtime, UTC),
                        temporary=_is_temporary(name),
                    )

    def move(self, key: str, to: str) -> None:
        """Rename."""
        source, target = self._path(key), self._path(to)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):
                source.replace(target)
        except OSError as error:
            raise Unavailable("The storage could not move a file.", hint="Check the folder's permissions.") from error
        self._prune(source)

    def delete(self, key: str) -> None:
        """Remove one file, and the folders it leaves empty."""
        path = self._path(key)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise Unavailable("The storage could not remove a file.", hint="Check the folder's permissions.") from error
        self._prune(path)

    def delete_prefix(self, prefix: str) -> None:
        """Remove a folder."""
        shutil.rmtree(self._path(prefix), ignore_errors=True)

    def check(self) -> None:
        """Prove that the folder can be written."""
        probe = self.root / _probe()
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            probe.write_bytes(b"ok")
            probe.unlink()
        except OSError as error:
            raise Unavailable(
                "The storage folder cannot be written.", hint="Check its permissions and free space."
            ) from error

    def _prune(self, path: Path) -> None:
        with suppress(OSError):  # one that is not empty
            for folder in path.parents:
                if folder == self.root.resolve():
                    return
                folder.rmdir()

    def _path(self, key: str) -> Path:
        path = (self.root / key).resolve()
        if not path.is_relative_to(self.root.resolve()):
            raise ValueError("a storage key left its folder")
        return path


class ObjectStorage:
    """Objects in S3, GCS or Azure."""

    def __init__(self, url: str, *, endpoint: str | None = None) -> None:
        client: Any = {"timeout": _WHOLE_REQUEST, "read_timeout": _STALL, "connect_timeout": _CONNECT}
        options: dict[str, Any] = {}
        if endpoint is not None:
            options, client["allow_http"] = {"endpoint": endpoint}, endpoint.startswith("http://")
        self._store = from_url(url, client_options=client, retry_config=_RETRIES, **options)

    def put(self, key: str, source: Path) -> None:
        """Upload; an object appears whole or not at all."""
        try:
            obstore.put(self._store, key, source)
        except (BaseError, OSError) as error:
            raise Unavailable(
                "The storage could not keep a file.", hint="Check the object store, then try again."
            ) from error

    def read(self, key: str, *, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Stream a range of the object."""
        try:
            options: Any = (
                {"range": (start, end)} if end is not None else ({"range": {"offset": start}} if start else None)
            )
            for chunk in obstore.get(self._store, key, options=options).stream(min_chunk_size=CHUNK_BYTES):
                yield bytes(chunk)
        except FileNotFoundError as error:
            raise NotFound("The file is no longer in the storage.") from error
        except (BaseError, OSError) as error:
            raise Unavailable("The storage does not answer.", hint="Try again in a moment.") from error

    def fetch(self, key: str, cache: Path) -> Path:
        """Download once into `cache`, under the key's own name; a second call finds it there."""
        target = cache / hashlib.sha256(key.encode()).hexdigest()
        if target.is_file():
            os.utime(target)  # the files used longest ago are the first to go
            return target
        cache.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f"{target.name}.{os.getpid()}.part")
        try:
            with part.open("wb") as file:
                for chunk in self.read(key):
                    file.write(chunk)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
        return target

    def size(self, key: str) -> int | None:
        """Bytes of the object."""
        try:
            return int(obstore.head(self._store, key)["size"])
        except FileNotFoundError:
            return None
        except (BaseError, OSError) as error:
            raise Unavailable("The storage does not answer.") from error

    def entries(self) -> Iterator[Entry]:
        """List the bucket; an object is there whole or not at all, so that only a check leaves one half done."""
        try:
            for batch in obstore.list(self._store):
                for item in batch:
                    key, modified = item["path"], item["last_modified"]
                    yield Entry(key=key, bytes=item["size"], modified=modified, temporary=_is_temporary(key))
        except (BaseError, OSError) as error:
            raise Unavailable("The storage does not answer.") from error

    def move(self, key: str, to: str) -> None:
        """Copy, then delete."""
        try:
            obstore.rename(self._store, key, to)
        except FileNotFoundError:
            return
        except (BaseError, OSError) as error:
            raise Unavailable("The storage does not answer.") from error

    def delete(self, key: str) -> None:
        """Remove one object."""
        try:
            obstore.delete(self._store, key)
        except FileNotFoundError:
            return
        except (BaseError, OSError) as error:
            raise Unavailable("The storage does not answer.") from error

    def delete_prefix(self, prefix: str) -> None:
        """Remove all objects below a prefix."""
        try:
            for batch in obstore.list(self._store, prefix=f"{prefix}/"):
                obstore.delete(self._store, [item["path"] for item in batch])
        except (BaseError, OSError) as error:
            raise Unavailable("The storage does not answer.") from error

    def check(self) -> None:
        """Prove that the bucket can be written."""
        key = _probe()
        try:
            obstore.put(self._store, key, b"ok")
            obstore.delete(self._store, key)
        except (BaseError, OSError) as error:
            raise Unavailable(
                "The object store cannot be written.", hint="Check its address, bucket and credentials."
            ) from error


def _probe() -> str:
    """A name nobody else takes: processes on several machines may have one number."""
    return f".probe-{uuid4().hex}"


def _is_temporary(key: str) -> bool:
    return _TEMPORARY.fullmatch(key.rpartition("/")[2]) is not None


def _opened_below(path: Path) -> BinaryIO:
    """A new file in a folder that is made if need be; whoever empties the folder may remove it at any moment."""
    for _ in range(10):
        with suppress(FileNotFoundError):
            path.parent.mkdir(parents=True, exist_ok=True)
            return path.open("wb")
    raise FileNotFoundError(path)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
