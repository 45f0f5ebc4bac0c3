"""The trainer: a process that runs the engine once and says how it goes. It has no database, broker or storage."""

import os
import socket
import sys
import tempfile
import threading
import traceback
from pathlib import Path

import distill
from stillhouse.spec.errors import JobFailure
from stillhouse.spec.events import Failed, TrainerEvent
from worker.order import Order


def main(channel: socket.socket) -> None:
    """Read the order from `channel`, run it, report over `channel`, and end the process."""
    line = _read_line(channel)
    if line:
        threading.Thread(target=_end_with, args=(channel,), daemon=True).start()
        _send(channel, _run(Order.model_validate_json(line), channel))
    sys.stderr.flush()
    # Skip the interpreter's tidying: it is slow with torch, and nothing here needs it.
    os._exit(0)


def _run(order: Order, channel: socket.socket) -> TrainerEvent:
    os.chdir(order.scratch)
    os.environ["TMPDIR"] = tempfile.tempdir = order.scratch
    io = distill.RunIO(
        dataset=Path(order.dataset),
        teacher=None if order.teacher is None else Path(order.teacher),
        output=order.output_path,
        shelf=distill.FolderShelf(Path(order.cache)),
        threads=order.threads,
    )
    try:
        return distill.run(order.spec, io, lambda event: _send(channel, event))
    except JobFailure as failure:
        return Failed(code=failure.code, detail=failure.detail, hint=failure.hint, retry=failure.retry)
    except Exception as error:  # noqa: BLE001 - whatever it is, the supervisor must hear of it
        # The trace goes to the worker's own log; the client gets the kind of error alone.
        traceback.print_exc()
        hint = "This is a fault of the service: give the job's id to its operator, whose log has the details."
        return Failed(code="engine_fault", detail=f"The engine failed with {type(error).__name__}.", hint=hint)


def _send(channel: socket.socket, event: TrainerEvent) -> None:
    channel.sendall(event.model_dump_json().encode() + b"\n")


def _read_line(channel: socket.socket) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        if not (data := channel.recv(1 << 16)):
            return b""
        line += data
    return line


def _end_with(channel: socket.socket) -> None:
    """The supervisor says nothing after the order: an end of file means that it has gone."""
    channel.recv(1)
    os._exit(1)
