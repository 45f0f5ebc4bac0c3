"""The trainer: a process that runs the engine once and says how it goes. It has no database, broker or storage."""

import os
import queue
import socket
import sys
import tempfile
import threading
import traceback
from pathlib import Path

import distill
from stillhouse.spec.errors import JobFailure
from stillhouse.spec.events import Failed, OutputsMade, OutputsPlace, OutputsWanted, TrainerEvent
from worker.order import Order


def main(channel: socket.socket) -> None:
    """Read the order from `channel`, run it, report over `channel`, and end the process."""
    line = _read_line(channel)
    if line:
        shelf = SupervisorsShelf(channel)
        threading.Thread(target=shelf.listen, daemon=True).start()
        _send(channel, _run(Order.model_validate_json(line), channel, shelf))
    sys.stderr.flush()
    # Skip the interpreter's tidying: it is slow with torch, and nothing here needs it.
    os._exit(0)


class SupervisorsShelf:
    """Where teacher outputs are kept: the supervisor knows, and is asked over the channel."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._answers: queue.SimpleQueue[OutputsPlace] = queue.SimpleQueue()

    def ask(self, wanted: OutputsWanted) -> OutputsPlace:
        """Waits as long as another job makes them."""
        _send(self._channel, wanted)
        return self._answers.get()

    def made(self, what: OutputsMade) -> None:
        """The supervisor does the rest."""
        _send(self._channel, what)

    def listen(self) -> None:
        """Take the supervisor's answers; an end of file means that it has gone, and ends this process."""
        while line := _read_line(self._channel):
            self._answers.put(OutputsPlace.model_validate_json(line))
        os._exit(1)


def _run(order: Order, channel: socket.socket, shelf: SupervisorsShelf) -> TrainerEvent:
    os.chdir(order.scratch)
    os.environ["TMPDIR"] = tempfile.tempdir = order.scratch
    io = distill.RunIO(
        dataset=Path(order.dataset),
        teacher=None if order.teacher is None else Path(order.teacher),
        output=order.output_path,
        shelf=shelf,
        dataset_sha256=order.dataset_sha256,
        latencies=Path(order.latencies),
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
