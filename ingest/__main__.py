"""`python -m ingest REQUEST.json`: read one upload within limits and print one JSON line, an `IngestAnswer`.

Exit status 0 means that the line is the answer, whether the upload was stored or refused. Anything else (a crash,
`EXIT_OUT_OF_MEMORY`, a signal) leaves no line, and the process that started this one says what it means.
"""

import sys
from pathlib import Path

from ingest.run import run
from stillhouse.spec.confined import confine, disk_fault
from stillhouse.spec.errors import InvalidData, TooLarge, UnsupportedMedia
from stillhouse.spec.upload import EXIT_OUT_OF_MEMORY, IngestAnswer, IngestRequest, Refusal

_OPEN_FILES = 64
# Beside x, a stored file holds 9 bytes a row, and its header.
_BESIDE_X_BYTES = 256 * 1024**2


def main() -> None:
    """Read the request named by the first argument."""
    request = IngestRequest.model_validate_json(Path(sys.argv[1]).read_bytes())
    limits = request.limits
    confine(
        seconds=limits.max_ingest_seconds,
        memory_bytes=limits.max_ingest_memory_bytes,
        file_bytes=limits.max_expanded_bytes + _BESIDE_X_BYTES,
        open_files=_OPEN_FILES,
    )
    try:
        print(_answer(request).model_dump_json(exclude_none=True))  # noqa: T201 (the answer is the output)
    except MemoryError:
        sys.exit(EXIT_OUT_OF_MEMORY)


def _answer(request: IngestRequest) -> IngestAnswer:
    try:
        return IngestAnswer(ok=run(request))
    except (InvalidData, TooLarge, UnsupportedMedia) as error:
        return IngestAnswer(error=Refusal.of(error))
    except OSError as error:
        return IngestAnswer(error=Refusal.of(disk_fault(error)))


if __name__ == "__main__":
    main()
