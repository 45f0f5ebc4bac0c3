"""Have an uploaded teacher read by a process of its own."""

import importlib.util
from pathlib import Path

from core.limited_child import Reader, python, read
from stillhouse.spec.errors import Unavailable
from stillhouse.spec.teachers import CheckedTeacher, IntakeAnswer, IntakeRequest

# `distill` is started, never imported; it lies beside this package, installed or not.
_COMMAND = python("-m", "distill.teachers.intake", "request.json")


def intake(request: IntakeRequest) -> CheckedTeacher:
    """Read `request.source` into the checked file `request.output`, and try it on random rows.

    Blocks for at most `request.limits.max_ingest_seconds`. Raises InvalidData, TooLarge or UnsupportedMedia when the
    file is at fault, also when it crashes or exhausts the reader, ServerFault when we are, and Unavailable when the
    engine is not installed beside this process. Nothing is left at the output's path then.
    """
    if any(importlib.util.find_spec(name) is None for name in ("torch", "distill")):
        detail = "Teachers cannot be uploaded here: this part of the service is installed without the engine."
        raise Unavailable(detail, hint="Install stillhouse[engine] beside it, or upload to a part that has it.")
    reader = Reader[CheckedTeacher](
        command=_COMMAND,
        answer=IntakeAnswer,
        seconds=request.limits.max_ingest_seconds,
        memory_bytes=request.limits.max_intake_memory_bytes,
        smaller="Upload a smaller network, or its weights in half precision.",
        # No library asks the network for anything, whatever a config names.
        environment={"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"},
    )
    paths = {"source": str(Path(request.source).absolute()), "output": str(Path(request.output).absolute())}
    return read(reader, request.model_copy(update=paths))
