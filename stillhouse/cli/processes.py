"""Child processes of `stillhouse up`: started, watched, started again, stopped together."""

import ctypes
import os
import signal
import subprocess
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

# More restarts than this within a minute and the part is broken, not unlucky.
_MAX_RESTARTS = 5
_LOG_BYTES = 20_000_000


@dataclass
class Child:
    """One part of the service."""

    name: str
    command: Sequence[str]
    env: Mapping[str, str]
    log: Path
    stdin: bytes = b""
    """Written to it at its start, for what must not stand in a command line."""
    pass_fds: tuple[int, ...] = ()
    process: "subprocess.Popen[bytes] | None" = None
    restarts: deque[float] = field(default_factory=lambda: deque(maxlen=_MAX_RESTARTS))

    def start(self) -> None:
        """Start it in a session of its own, so that Ctrl-C in the terminal reaches its supervisor alone."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        if self.log.exists() and self.log.stat().st_size > _LOG_BYTES:
            self.log.replace(self.log.with_suffix(".old.log"))
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(  # noqa: S603 - our own commands
                list(self.command),
                env=dict(self.env),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                pass_fds=self.pass_fds,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        assert self.process.stdin is not None
        self.process.stdin.write(self.stdin)
        self.process.stdin.close()

    @property
    def running(self) -> bool:
        """False when it has ended."""
        return self.process is not None and self.process.poll() is None

    def restart(self) -> bool:
        """Start it again; False when it has been started again too often."""
        now = time.monotonic()
        if len(self.restarts) == _MAX_RESTARTS and now - self.restarts[0] < 60:
            return False
        self.restarts.append(now)
        self.start()
        return True

    def signal(self, number: int) -> None:
        """Send a signal to the process."""
        if self.running:
            assert self.process is not None
            self.process.send_signal(number)

    def kill(self) -> None:
        """Kill it and all it started."""
        if self.process is None:
            return
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return

    def last_lines(self, count: int = 5) -> str:
        """The end of its log."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return "\n".join(lines[-count:])


def stop(children: Sequence[Child], *, seconds: float) -> None:
    """Ask all to end, wait at most `seconds`, and kill what is left, groups and all."""
    for child in children:
        child.signal(signal.SIGTERM)
    deadline = time.monotonic() + seconds
    while any(child.running for child in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    for child in children:
        child.kill()
        if child.process is not None:
            child.process.wait()


def _die_with_parent() -> None:
    """In the child, before it becomes the new program: end when `up` ends, however it ends. Linux only."""
    try:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
    except (OSError, AttributeError):
        return
