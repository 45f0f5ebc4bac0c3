"""Have an upload read by a process of its own: limited, without secrets, and gone when the call returns."""

import logging
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from pydantic import ValidationError

from stillhouse.spec.errors import InvalidData, ServerFault, StillhouseError
from stillhouse.spec.limits import Limits
from stillhouse.spec.upload import EXIT_OUT_OF_MEMORY, IngestAnswer, IngestRequest, StoredUpload

log = logging.getLogger(__name__)

# `ingest` is started, never imported; it lies beside this package, installed or not.
_COMMAND = (sys.executable, "-P", "-X", "faulthandler", "-m", "ingest", "request.json")
_CODE_HOME = str(Path(__file__).resolve().parents[1])


def ingest(request: IngestRequest) -> StoredUpload:
    """Read `request.source` (or make its builtin) into the stored dataset `request.output`.

    Blocks for at most `request.limits.max_ingest_seconds`. Raises InvalidData, TooLarge or UnsupportedMedia
    when the file is at fault, also when it crashes or exhausts the reader, and ServerFault when we are.
    Nothing is left at the output's path then.
    """
    request = request.model_copy(update=_absolute_paths(request))
    with tempfile.TemporaryDirectory(prefix="ingest-") as folder:
        try:
            return _outcome(_run(request, Path(folder)))
        except BaseException:
            Path(request.partial).unlink(missing_ok=True)
            Path(request.output).unlink(missing_ok=True)
            raise


def _absolute_paths(request: IngestRequest) -> dict[str, str | None]:
    source = None if request.source is None else str(Path(request.source).absolute())
    return {"source": source, "output": str(Path(request.output).absolute())}


def _run(request: IngestRequest, folder: Path) -> IngestAnswer:
    (folder / "request.json").write_text(request.model_dump_json(), encoding="utf-8")
    # Files, not pipes: whatever the reader prints, nobody has to drain it, and RLIMIT_FSIZE bounds it.
    with (folder / "stdout").open("wb") as out, (folder / "stderr").open("wb") as err:
        process = subprocess.Popen(  # noqa: S603 (a fixed command; the request travels in a file)
            _COMMAND,
            cwd=folder,
            env=_environment(folder),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
        try:
            status = process.wait(timeout=request.limits.max_ingest_seconds)
        except subprocess.TimeoutExpired:
            raise _too_slow(request.limits) from None
        finally:
            _end(process)
    if status != 0:
        raise _death(status, _tail(folder / "stderr"), request.limits)
    try:
        return IngestAnswer.model_validate_json((folder / "stdout").read_bytes())
    except ValidationError as error:
        log.error("the reader of uploads gave no valid answer: %s", error.error_count())
        raise ServerFault("The upload could not be read through a fault of ours.") from error


def _outcome(answer: IngestAnswer) -> StoredUpload:
    if answer.error is not None:
        raise answer.error.error()
    assert answer.ok is not None  # the model holds: either ok or error
    return answer.ok


def _environment(folder: Path) -> dict[str, str]:
    env = {
        "PYTHONPATH": _CODE_HOME,
        "LANG": "C.UTF-8",
        "HOME": str(folder),
        "TMPDIR": str(folder),
        # One thread: the limits on CPU time and address space then mean what they say.
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MALLOC_ARENA_MAX": "1",
        "ARROW_DEFAULT_MEMORY_POOL": "system",
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


def _death(status: int, stderr: bytes, limits: Limits) -> StillhouseError:
    log.warning("the reader of uploads ended with status %d: %s", status, stderr.decode("utf-8", "replace"))
    if status == -signal.SIGXCPU:
        return _too_slow(limits)
    if status in (EXIT_OUT_OF_MEMORY, -signal.SIGKILL) or b"bad_alloc" in stderr or b"MemoryError" in stderr:
        return _too_much_memory(limits)
    return InvalidData.at(
        "/file",
        "unreadable",
        "The file could not be read: the reader broke off in the middle of it.",
        hint="Check that the file is whole and opens elsewhere; write it anew, or in another format.",
    )


def _too_slow(limits: Limits) -> StillhouseError:
    detail = f"Reading the file took longer than the limit of {limits.max_ingest_seconds:g} seconds."
    return InvalidData.at("/file", "too_slow", detail, hint="Upload fewer rows, or smaller images.")


def _too_much_memory(limits: Limits) -> StillhouseError:
    gib = limits.max_ingest_memory_bytes / 1024**3
    detail = f"Reading the file needs more memory than the limit of {gib:.3g} GiB."
    hint = "Upload fewer rows or columns, or smaller images."
    return InvalidData.at("/file", "too_much_memory", detail, hint=hint)
