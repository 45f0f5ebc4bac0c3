"""Have an untrusted file read by a process of its own: limited, without secrets, and gone when the call returns."""

import logging
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from pydantic import BaseModel, ValidationError

from stillhouse.spec.errors import InvalidData, ServerFault, StillhouseError
from stillhouse.spec.upload import EXIT_OUT_OF_MEMORY, Refusal

log = logging.getLogger(__name__)

_CODE_HOME = str(Path(__file__).resolve().parents[1])


class Request(Protocol):
    """What a reader is told: it writes `output`, and has it at `partial` until it is complete."""

    @property
    def output(self) -> str: ...
    @property
    def partial(self) -> str: ...
    def model_dump_json(self) -> str: ...


Stored = TypeVar("Stored")
_Given = TypeVar("_Given", covariant=True)


class Answer(Protocol[_Given]):
    """What a reader answers: exactly one of the two."""

    @property
    def ok(self) -> _Given | None: ...
    @property
    def error(self) -> Refusal | None: ...


@dataclass(frozen=True, kw_only=True)
class Reader(Generic[Stored]):
    """A program that reads one kind of upload, and the bounds it is held to."""

    command: tuple[str, ...]
    """It finds `request.json` in its working folder, prints one line, an answer, and is never imported here."""
    answer: type[BaseModel]
    seconds: float
    memory_bytes: int
    """What the program limits itself to; here it is for the message alone."""
    smaller: str
    """How an upload that is too much gets smaller, as an imperative sentence."""
    environment: Mapping[str, str] = field(default_factory=dict)


def python(*arguments: str) -> tuple[str, ...]:
    """The command that runs a module of this installation."""
    return (sys.executable, "-P", "-X", "faulthandler", *arguments)


def read(reader: Reader[Stored], request: Request) -> Stored:
    """What `reader` makes of `request`.

    Blocks for at most `reader.seconds`. Raises InvalidData, TooLarge or UnsupportedMedia when the file is at fault,
    also when it crashes or exhausts the reader, and ServerFault when we are. Nothing is left at the output's path then.
    """
    with tempfile.TemporaryDirectory(prefix="ingest-") as folder:
        try:
            return _outcome(_run(reader, request, Path(folder)))
        except BaseException:
            Path(request.partial).unlink(missing_ok=True)
            Path(request.output).unlink(missing_ok=True)
            raise


def _run(reader: Reader[Stored], request: Request, folder: Path) -> Answer[Stored]:
    (folder / "request.json").write_text(request.model_dump_json(), encoding="utf-8")
    # Files, not pipes: whatever the reader prints, nobody has to drain it, and RLIMIT_FSIZE bounds it.
    with (folder / "stdout").open("wb") as out, (folder / "stderr").open("wb") as err:
        process = subprocess.Popen(  # noqa: S603 (a fixed command; the request travels in a file)
            reader.command,
            cwd=folder,
            env=_environment(reader, folder),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
        try:
            status = process.wait(timeout=reader.seconds)
        except subprocess.TimeoutExpired:
            raise _too_slow(reader) from None
        finally:
            _end(process)
    if status != 0:
        raise _death(reader, status, _tail(folder / "stderr"))
    try:
        answer: Answer[Stored] = reader.answer.model_validate_json((folder / "stdout").read_bytes())  # type: ignore[assignment]
    except ValidationError as error:
        log.error("the reader of uploads gave no valid answer: %s", error.error_count())
        raise ServerFault("The upload could not be read through a fault of ours.") from error
    return answer


def _outcome(answer: Answer[Stored]) -> Stored:
    if answer.error is not None:
        raise answer.error.error()
    assert answer.ok is not None  # the model holds: either ok or error
    return answer.ok


def _environment(reader: Reader[Stored], folder: Path) -> dict[str, str]:
    env = {
        "PYTHONPATH": _CODE_HOME,
        "LANG": "C.UTF-8",
        "HOME": str(folder),
        "TMPDIR": str(folder),
        # One thread: the limits on CPU time and address space then mean what they say.
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MALLOC_ARENA_MAX": "1",
        **reader.environment,
    }
    # Where the interpreter itself is found by these, it cannot start without them.
    return env | {k: os.environ[k] for k in ("LD_LIBRARY_PATH", "SYSTEMROOT") if k in os.environ}


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the reader's whole group, unless the reader has ended by itself (it starts nothing)."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _tail(path: Path, size: int = 4000) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - size))
        return file.read()


def _death(reader: Reader[Stored], status: int, stderr: bytes) -> StillhouseError:
    log.warning("the reader of uploads ended with status %d: %s", status, stderr.decode("utf-8", "replace"))
    if status == -signal.SIGXCPU:
        return _too_slow(reader)
    if status in (EXIT_OUT_OF_MEMORY, -signal.SIGKILL) or b"bad_alloc" in stderr or b"MemoryError" in stderr:
        gib = reader.memory_bytes / 1024**3
        detail = f"Reading the file needs more memory than the limit of {gib:.3g} GiB."
        return InvalidData.at("/file", "too_much_memory", detail, hint=reader.smaller)
    return InvalidData.at(
        "/file",
        "unreadable",
        "The file could not be read: the reader broke off in the middle of it.",
        hint="Check that the file is whole and opens elsewhere; write it anew, or in another format.",
    )


def _too_slow(reader: Reader[Stored]) -> StillhouseError:
    detail = f"Reading the file took longer than the limit of {reader.seconds:g} seconds."
    return InvalidData.at("/file", "too_slow", detail, hint=reader.smaller)
