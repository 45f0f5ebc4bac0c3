"""`python -m distill.teachers.intake REQUEST.json`: read one uploaded teacher within limits and print one JSON line, an
`IntakeAnswer`.

Exit status 0 means that the line is the answer, whether the teacher was stored or refused. Anything else (a crash,
`EXIT_OUT_OF_MEMORY`, a signal) leaves no line, and the process that started this one says what it means.
"""

import os
import sys
from pathlib import Path

import torch

from distill.teachers.read import read
from stillhouse.spec.confined import confine, disk_fault
from stillhouse.spec.errors import InvalidData, TooLarge, UnsupportedMedia
from stillhouse.spec.teachers import IntakeAnswer, IntakeRequest
from stillhouse.spec.upload import EXIT_OUT_OF_MEMORY, Refusal

_OPEN_FILES = 256
_BESIDE_BYTES = 256 * 1024**2


def main() -> None:
    """Read the request named by the first argument."""
    request = IntakeRequest.model_validate_json(Path(sys.argv[1]).read_bytes())
    limits = request.limits
    confine(
        seconds=limits.max_ingest_seconds,
        memory_bytes=limits.max_intake_memory_bytes,
        file_bytes=limits.max_expanded_bytes + _BESIDE_BYTES,
        open_files=_OPEN_FILES,
    )
    torch.set_num_threads(1)
    # Libraries print what they like; the answer alone goes to the real standard output.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        answers.write(_answer(request).model_dump_json(exclude_none=True) + "\n")
        answers.flush()
    except MemoryError:
        sys.exit(EXIT_OUT_OF_MEMORY)


def _answer(request: IntakeRequest) -> IntakeAnswer:
    try:
        return IntakeAnswer(ok=read(request))
    except (InvalidData, TooLarge, UnsupportedMedia) as error:
        return IntakeAnswer(error=Refusal.of(error))
    except OSError as error:
        return IntakeAnswer(error=Refusal.of(disk_fault(error)))


if __name__ == "__main__":
    main()
