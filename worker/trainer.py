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
from distill.checkpoints import Checkpoints, Stopped
from stillhouse.spec.errors import JobFailure
from stillhouse.spec.events import TOLD, Failed, OutputsMade, OutputsPlace, OutputsWanted, TrainerEvent, Wish
from stillhouse.spec.events import Stopped as StoppedEvent
from worker.order import Order


def main(channel: socket.socket) -> None:
    """Read the order from `channel`, run it, report over `channel`, and end the process."""
    line = _read_line(channel)
    if line:
        supervisor = Supervisor(channel)
        threading.Thread(target=supervisor.listen, daemon=True).start()
        _send(channel, _run(Order.model_validate_json(line), channel, supervisor))
    sys.stderr.flush()
    # Skip the interpreter's tidying: it is slow with torch, and nothing here needs it.
    os._exit(0)


class Supervisor:
    """Who is asked over the channel where teacher outputs are kept, and who tells what is wished of the run."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._answers: queue.SimpleQueue[OutputsPlace | None] = queue.SimpleQueue()
        self._wish: Wish | None = None

    def wish(self) -> Wish | None:
        """The latest."""
        return self._wish

    def ask(self, wanted: OutputsWanted) -> OutputsPlace:
        """Waits as long as another job makes them. Raises Stopped when that is wished meanwhile."""
        _send(self._channel, wanted)
        if (answer := self._answers.get()) is None:
            raise Stopped
        return answer

    def made(self, what: OutputsMade) -> None:
        """The supervisor does the rest."""
        _send(self._channel, what)

    def listen(self) -> None:
        """Take what the supervisor says; an end of file means that it has gone, and ends this process."""
        while line := _read_line(self._channel):
            told = TOLD.validate_json(line)
            if isinstance(told, OutputsPlace):
                self._answers.put(told)
            else:
                self._wish = told.wish
                if told.wish == "stop":
                    self._answers.put(None)
        os._exit(1)


def _run(order: Order, channel: socket.socket, supervisor: Supervisor) -> TrainerEvent:
    os.chdir(order.scratch)
    os.environ["TMPDIR"] = tempfile.tempdir = order.scratch
    io = distill.RunIO(
        dataset=Path(order.dataset),
        teacher=None if order.teacher is None else Path(order.teacher),
        output=order.output_path,
        shelf=supervisor,
        dataset_sha256=order.dataset_sha256,
        teacher_sha256=order.teacher_sha256,
        latencies=Path(order.latencies),
        threads=order.threads,
        checkpoints=Checkpoints(Path(order.checkpoints), every_seconds=order.checkpoint_seconds),
        wishes=supervisor.wish,
        hub=_hub(order),
    )
    try:
        return distill.run(order.spec, io, lambda event: _send(channel, event))
    except Stopped:
        return StoppedEvent()
    except JobFailure as failure:
        return Failed(code=failure.code, detail=failure.detail, hint=failure.hint, retry=failure.retry)
    except Exception as error:  # noqa: BLE001 - whatever it is, the supervisor must hear of it
        # The trace goes to the worker's own log; the client gets the kind of error alone.
        traceback.print_exc()
        hint = "This is a fault of the service: give the job's id to its operator, whose log has the details."
        return Failed(code="engine_fault", detail=f"The engine failed with {type(error).__name__}.", hint=hint)


def _hub(order: Order) -> distill.Hub:
    """What is downloaded stays in this attempt's own folder: weights behind a token are not for other projects."""
    if order.hub is not None:
        # Before huggingface_hub is imported, which reads it then.
        os.environ.pop("HF_HUB_OFFLINE", None)
    return distill.Hub(address=order.hub, cache=Path(order.scratch) / "hub", tokens=order.hub_tokens)


def _send(channel: socket.socket, event: TrainerEvent) -> None:
    channel.sendall(event.model_dump_json().encode() + b"\n")


def _read_line(channel: socket.socket) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        if not (data := channel.recv(1 << 16)):
            return b""
        line += data
    return line
