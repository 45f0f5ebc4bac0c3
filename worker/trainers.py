"""The supervisor's side of its trainers: one fork server kept warm, and a handle on the trainer that works."""

import json
import os
import select
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from core.settings import Settings
from stillhouse.spec.events import TRAINER_EVENT, Told, TrainerEvent
from worker.lifeline import Ending, describe_exit, kill_group
from worker.memory import oom_kills
from worker.order import Order

_READ_BYTES = 1 << 16
# Importing torch takes seconds; on a machine that swaps or reads it from a cold disk, many.
_READY_SECONDS = 180
_ANSWER_SECONDS = 30


class TrainerLost(Exception):
    """The fork server is gone or gave no trainer."""


class Trainer:
    """A running trainer."""

    def __init__(self, pid: int, channel: socket.socket, server: "ForkServer") -> None:
        self.pid = pid
        self._channel = channel
        self._server = server
        self._buffer = b""
        self.status: int | None = None
        """Wait status, once it has ended."""
        self._peak_bytes: int | None = None
        self._oom_kills = oom_kills()

    def events(self, timeout: float) -> list[TrainerEvent] | None:
        """What it said within `timeout` seconds; None when it will say no more."""
        ready, _, _ = select.select([self._channel], [], [], timeout)
        if not ready:
            return []
        try:
            data = self._channel.recv(_READ_BYTES)
        except ConnectionResetError:
            data = b""
        if not data:
            return None
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        return [TRAINER_EVENT.validate_json(line) for line in lines]

    def tell(self, what: Told) -> None:
        """Answer it, or ask it. One that has gone by now will be heard of by `events`."""
        with suppress(OSError):
            self._channel.sendall(what.model_dump_json().encode() + b"\n")

    def end(self) -> None:
        """Kill it if it still lives, with all it started."""
        if self.status is None:
            kill_group(self.pid)
            self._channel.close()
            with suppress(TrainerLost):  # it has gone with the process that forked it
                self._bury()
            kill_group(self.pid)  # what it started may have been forking while the first blow fell

    def wait(self) -> Ending:
        """How it ended, once it has closed its channel by itself."""
        self._bury()
        self._channel.close()
        kill_group(self.pid)
        assert self.status is not None
        after = oom_kills()
        known = self._oom_kills is not None and after is not None
        return describe_exit(
            self.status,
            out_of_memory=after != self._oom_kills if known else None,
            peak_bytes=self._peak_bytes,
        )

    def _bury(self) -> None:
        found = self._server.buried(self.pid)
        self.status, self._peak_bytes = found["status"], found["peak_bytes"]


class ForkServer:
    """A warm process to fork trainers from. Made by a supervisor's main thread; dies with it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-m", "worker.forkserver", str(theirs.fileno()), str(os.getpid())]
            self._process = subprocess.Popen(  # noqa: S603 - our own module
                command, pass_fds=[theirs.fileno()], env=_environment(settings), stdin=subprocess.DEVNULL
            )
        self._ready = False
        self._exits: dict[int, dict[str, int]] = {}

    @property
    def alive(self) -> bool:
        """False when it has ended."""
        return self._process.poll() is None

    def wait_ready(self) -> None:
        """Return once torch is imported. Raises TrainerLost."""
        if not self._ready:
            self._receive(_READY_SECONDS)

    def start(self, order: Order) -> Trainer:
        """Fork a trainer and give it its order. Raises TrainerLost."""
        self.wait_ready()
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                socket.send_fds(self._control, [b"fork"], [theirs.fileno()])
            except OSError as error:
                raise TrainerLost("The process that starts trainers has gone.") from error
        try:
            answer = self._receive(_ANSWER_SECONDS)
            while "pid" not in answer:
                answer = self._receive(_ANSWER_SECONDS)
            ours.sendall(order.model_dump_json().encode() + b"\n")
        except (TrainerLost, OSError):
            ours.close()
            raise
        return Trainer(answer["pid"], ours, self)

    def buried(self, pid: int) -> dict[str, int]:
        """`status` and `peak_bytes` of a trainer that is ending. Raises TrainerLost when nobody can tell."""
        while pid not in self._exits:
            self._receive(_ANSWER_SECONDS)
        return self._exits.pop(pid)

    def stop(self) -> None:
        """End it, and with it any trainer."""
        self._process.kill()
        self._process.wait()
        self._control.close()

    def _receive(self, seconds: float) -> dict[str, int]:
        deadline = time.monotonic() + seconds
        ready, _, _ = select.select([self._control], [], [], max(0.0, deadline - time.monotonic()))
        message = self._control.recv(4096) if ready else b""
        if not message:
            # What it said later would be taken for the answer to another question.
            self._process.kill()
            self._process.wait()
            raise TrainerLost("The process that starts trainers does not answer.")
        if message == b"ready":
            self._ready = True
            return {}
        answer: dict[str, int] = json.loads(message)
        if "exit" in answer:
            self._exits[answer["exit"]] = answer
        return answer


def _environment(settings: Settings) -> dict[str, str]:
    """What a trainer may know of its surroundings: nothing secret, no addresses."""
    kept = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TZ", "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES")
    env = {name: os.environ[name] for name in kept if name in os.environ}
    # Trainers may share the cores with others: a thread that spins while it waits takes them away from the work.
    env |= {"OMP_WAIT_POLICY": "PASSIVE"}
    # The process that forks must have one thread, and these libraries would start their own when imported.
    env |= {"OPENBLAS_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1"}
    env |= {"MKL_CBWR": "AUTO"}  # a row has the same bits wherever it lies (distill/device.py)
    env |= {"HOME": "/nonexistent", "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
    # Where a job may ask the hub, its client shall keep no files of its own and say nothing on the way.
    env |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    env["PYTHONPATH"] = str(Path(__file__).resolve().parent.parent)
    if settings.cuda_visible_devices is not None:
        env["CUDA_VISIBLE_DEVICES"] = settings.cuda_visible_devices
    return env
