"""A process that has torch imported and does nothing but fork trainers, so that a job does not wait for imports.

It has one thread, no CUDA and no connection, which is what makes forking it safe. Started by a supervisor with a
control socket as its only argument; each message on it carries the channel of a trainer to fork, and is answered
with the trainer's pid; when a trainer ends, its wait status follows.
"""

import gc
import json
import os
import resource
import select
import signal
import socket
import sys

# Looking for garbage again and again while ever more modules arrive is a quarter of what the imports cost.
gc.disable()

from distill.warm import warm  # noqa: E402
from worker import trainer  # noqa: E402
from worker.lifeline import die_with_parent  # noqa: E402

READY = b"ready"
_MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024


def main() -> None:
    """Serve until the supervisor goes."""
    die_with_parent(int(sys.argv[2]))
    # Ctrl-C and a service manager's SIGTERM reach the whole group; what they mean for a job its supervisor decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    control = socket.socket(fileno=int(sys.argv[1]))
    warm()
    control.send(READY)
    children: dict[int, int] = {}  # pidfd → pid
    while True:
        ready, _, _ = select.select([control.fileno(), *children], [], [])
        for descriptor in ready:
            if descriptor == control.fileno():
                _fork(control, children)
            else:
                _bury(control, children, descriptor)


def _fork(control: socket.socket, children: dict[int, int]) -> None:
    message, descriptors, _, _ = socket.recv_fds(control, 64, 1)
    if not message:
        os._exit(0)
    server = os.getpid()
    pid = os.fork()
    if pid == 0:
        control.close()
        for pidfd in children:
            os.close(pidfd)
        _become_trainer(descriptors[0], server)
    os.close(descriptors[0])
    children[os.pidfd_open(pid)] = pid
    control.send(json.dumps({"pid": pid}).encode())


def _become_trainer(descriptor: int, server: int) -> None:
    gc.enable()
    os.setsid()  # a group of its own, to be killed as one
    die_with_parent(server)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold the data
    trainer.main(socket.socket(fileno=descriptor))


def _bury(control: socket.socket, children: dict[int, int], pidfd: int) -> None:
    pid = children.pop(pidfd)
    os.close(pidfd)
    _, status, usage = os.wait4(pid, 0)
    peak = usage.ru_maxrss * _MAXRSS_UNIT
    control.send(json.dumps({"exit": pid, "status": status, "peak_bytes": peak}).encode())


if __name__ == "__main__":
    main()
