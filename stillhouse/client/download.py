"""Files from the service to a folder: continued where they broke off, checked, and named only when they are whole."""

import hashlib
import os
import time
import zipfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import BinaryIO
from urllib.parse import quote

import httpx2

from stillhouse.client.transport import Transport, pause, unreachable
from stillhouse.spec.archive import BROKEN
from stillhouse.spec.errors import BadAnswer, NotFound, RangeNotSatisfiable
from stillhouse.spec.views import Artifact

OnProgress = Callable[[str, int, int], None]
"""Called with file name, bytes so far, bytes in all (0: not known). Bytes can go back when a file starts anew."""

# Compressed on its way, a file would have other byte positions than the ones we ask for.
_PLAIN = {"Accept": "*/*", "Accept-Encoding": "identity"}


def download(
    transport: Transport,
    path: str,
    artifacts: Sequence[Artifact],
    folder: Path,
    *,
    names: Iterable[str] | None,
    overwrite: bool,
    on_progress: OnProgress | None,
) -> list[Path]:
    """Fetch `artifacts` (or those of `names`) from below `path` into `folder`. See `Jobs.download`."""
    wanted = artifacts if names is None else _chosen(artifacts, names)
    targets = [_inside(folder, artifact.name) for artifact in wanted]
    if len({target.name.casefold() for target in targets}) < len(targets):
        raise BadAnswer("The service names two files alike; nothing was written.")
    folder.mkdir(parents=True, exist_ok=True)
    missing = [
        (artifact, target)
        for artifact, target in zip(wanted, targets, strict=True)
        if not _is_there(artifact, target, overwrite)
    ]
    for artifact, target in missing:
        _fetch(transport, f"{path}/{quote(artifact.name, safe='')}", artifact, target, on_progress)
    return targets


def download_bundle(
    transport: Transport, path: str, target: Path, *, overwrite: bool, on_progress: OnProgress | None
) -> Path:
    """Fetch a ZIP the service makes as it goes."""
    return download_whole(transport, path, target, overwrite=overwrite, on_progress=on_progress, check=_check_zip)


def download_whole(
    transport: Transport,
    path: str,
    target: Path,
    *,
    overwrite: bool,
    on_progress: OnProgress | None,
    check: Callable[[Path], None] = lambda _: None,
) -> Path:
    """Fetch what the service makes as it goes. It cannot be continued; a cut file is fetched anew."""
    if target.exists() and not overwrite:
        raise FileExistsError(f"{target} exists already")
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    try:
        for attempt in range(transport.retries + 1):
            try:
                _fetch_whole(transport, path, part, on_progress)
                break
            except httpx2.RequestError as error:
                if attempt == transport.retries:
                    raise unreachable(transport.config.url, error) from error
                time.sleep(pause(attempt))
        check(part)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return target


def _chosen(artifacts: Sequence[Artifact], names: Iterable[str]) -> list[Artifact]:
    known = {artifact.name: artifact for artifact in artifacts}
    names = list(dict.fromkeys(names))
    if unknown := [name for name in names if name not in known]:
        detail = f"The job has no file {', '.join(unknown)}."
        raise NotFound(detail, hint=f"It has {', '.join(known)}.")
    return [known[name] for name in names]


def _inside(folder: Path, name: str) -> Path:
    """Where a file goes. Whatever the service says, that is a visible file directly in `folder`."""
    plain = name and name == PurePosixPath(name).name == PureWindowsPath(name).name and name.isprintable()
    if not plain or name.startswith(".") or name.endswith(".part") or ":" in name:
        raise BadAnswer(f"The service names a file {name!r}, which could leave the folder; nothing was written.")
    return folder / name


def _is_there(artifact: Artifact, target: Path, overwrite: bool) -> bool:
    if not target.exists():
        return False
    if target.is_file() and target.stat().st_size == artifact.bytes and _sha256(target) == artifact.sha256:
        return True
    if not overwrite:
        raise FileExistsError(f"{target} exists already and is another file")
    return False


def _fetch(transport: Transport, path: str, artifact: Artifact, target: Path, on_progress: OnProgress | None) -> None:
    part = target.with_name(f"{target.name}.part")
    found_size = _size(part)
    _complete(transport, path, artifact, part, on_progress)
    if _sha256(part) != artifact.sha256 and found_size:
        # What lay here may have been the beginning of another file: once more, from the start.
        part.unlink()
        _complete(transport, path, artifact, part, on_progress)
    if (arrived := _sha256(part)) != artifact.sha256:
        part.unlink()
        raise BadAnswer(
            f"{artifact.name} arrived damaged: its sha256 is {arrived}, the service promised {artifact.sha256}.",
            hint="Try again; if it happens twice, the stored file is damaged.",
        )
    part.replace(target)


def _complete(transport: Transport, path: str, artifact: Artifact, part: Path, on_progress: OnProgress | None) -> None:
    """Fetch what `part` lacks, asking again after every cut as long as the file grows."""
    if _size(part) > artifact.bytes:
        part.unlink()
    fruitless = 0
    while (have := _size(part)) < artifact.bytes or not part.exists():
        try:
            _append(transport, path, artifact, part, have, on_progress)
        except RangeNotSatisfiable as error:
            raise _wrong_size(artifact) from error
        except httpx2.RequestError as error:
            fruitless = 1 if _size(part) > have else fruitless + 1
            if fruitless > transport.retries:
                raise unreachable(transport.config.url, error) from error
            time.sleep(pause(fruitless))


def _append(
    transport: Transport, path: str, artifact: Artifact, part: Path, have: int, on_progress: OnProgress | None
) -> None:
    headers = dict(_PLAIN)
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": f'"{artifact.sha256}"'}
    with transport.stream(path, headers=headers) as response:
        done = _start(response, artifact, have)
        with _open(part, fresh=done == 0) as file:
            for chunk in response.iter_raw():
                done += len(chunk)
                if done > artifact.bytes:
                    raise _wrong_size(artifact)
                file.write(chunk)
                if on_progress is not None:
                    on_progress(artifact.name, done, artifact.bytes)
    if done < artifact.bytes:
        raise _wrong_size(artifact)


def _start(response: httpx2.Response, artifact: Artifact, have: int) -> int:
    """At which byte the answer begins: a service may send the whole file although we asked for its end."""
    if response.status_code != 206:
        return 0
    if response.headers.get("content-range") != f"bytes {have}-{artifact.bytes - 1}/{artifact.bytes}":
        raise BadAnswer(f"The service sent another part of {artifact.name} than it was asked for.")
    return have


def _fetch_whole(transport: Transport, path: str, part: Path, on_progress: OnProgress | None) -> None:
    name = part.name.removesuffix(".part")
    done = 0
    with transport.stream(path, headers=_PLAIN) as response, _open(part, fresh=True) as file:
        for chunk in response.iter_raw():
            file.write(chunk)
            done += len(chunk)
            if on_progress is not None:
                on_progress(name, done, 0)


def _check_zip(part: Path) -> None:
    try:
        with zipfile.ZipFile(part) as archive:
            damaged = archive.testzip()
    except BROKEN as error:
        raise BadAnswer("The ZIP arrived damaged.", hint="Try again, or fetch the files one by one.") from error
    if damaged is not None:
        raise BadAnswer(f"The ZIP arrived damaged: {damaged} does not match its checksum.", hint="Try again.")


def _open(part: Path, *, fresh: bool) -> BinaryIO:
    """The partial file, for writing at its end. A link that lies in its place is not followed."""
    flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if fresh else os.O_APPEND)
    flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    return os.fdopen(os.open(part, flags, 0o666), "wb" if fresh else "ab")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _wrong_size(artifact: Artifact) -> BadAnswer:
    detail = f"{artifact.name} has another size than the {artifact.bytes} bytes the service promised."
    return BadAnswer(detail, hint="Try again; if it happens twice, the stored file is damaged.")
