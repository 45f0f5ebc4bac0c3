"""Have an uploaded dataset read by a process of its own."""

from pathlib import Path

from core.limited_child import Reader, python, read
from stillhouse.spec.upload import IngestAnswer, IngestRequest, StoredUpload

# `ingest` is started, never imported; it lies beside this package, installed or not.
_COMMAND = python("-m", "ingest", "request.json")


def ingest(request: IngestRequest) -> StoredUpload:
    """Read `request.source` (or make its builtin) into the stored dataset `request.output`.

    Blocks for at most `request.limits.max_ingest_seconds`. Raises InvalidData, TooLarge or UnsupportedMedia
    when the file is at fault, also when it crashes or exhausts the reader, and ServerFault when we are.
    Nothing is left at the output's path then.
    """
    reader = Reader[StoredUpload](
        command=_COMMAND,
        answer=IngestAnswer,
        seconds=request.limits.max_ingest_seconds,
        memory_bytes=request.limits.max_ingest_memory_bytes,
        smaller="Upload fewer rows or columns, or smaller images.",
        environment={"ARROW_DEFAULT_MEMORY_POOL": "system"},
    )
    return read(reader, request.model_copy(update=_absolute_paths(request)))


def _absolute_paths(request: IngestRequest) -> dict[str, str | None]:
    source = None if request.source is None else str(Path(request.source).absolute())
    return {"source": source, "output": str(Path(request.output).absolute())}
