"""A bound on what a trainer takes: its memory is looked at from outside, and beyond the limit it is killed.

A limit of the kernel's on address space would not do: torch, CUDA and mapped files reserve far more than they use. What
counts is memory of the trainer's own (anonymous and shared, of it and of what it started); files it has mapped do not
count, since the kernel can drop their pages. Linux only: elsewhere there is nothing to look at, and no limit.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stillhouse.spec.errors import FAILURE_CODES
from stillhouse.spec.events import Failed
from worker.lifeline import kill_group

_LOOK_SECONDS = 0.1
_COUNTED = ("RssAnon:", "RssShmem:")


class Watch:
    """What a watch has seen."""

    def __init__(self, limit_mb: int) -> None:
        self._limit_mb = limit_mb
        self.exceeded = False

    def failure(self) -> Failed:
        """How the attempt ended: another would need as much."""
        return Failed(
            code="out_of_memory",
            detail=f"{FAILURE_CODES['out_of_memory']} The limit is {self._limit_mb:,} MB.",
            hint="Use a smaller batch or network, or ask the operator to raise STILLHOUSE_TRAINER_MEMORY_MB.",
        )


@contextmanager
def watched(pid: int, limit_mb: int | None) -> Iterator[Watch]:
    """Watch the trainer `pid` until the block ends. None: no limit."""
    watch, stop = Watch(limit_mb or 0), threading.Event()
    if limit_mb is None:
        yield watch
        return
    thread = threading.Thread(target=_look, args=(pid, limit_mb * 1024, watch, stop), name="memory", daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        stop.set()
        thread.join()


def used_kib(pid: int) -> int:
    """Memory of a process and all it started, in KiB; 0 when there is none, or where this cannot be seen."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines()
        children = " ".join(path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")).split()
    except OSError:
        return 0
    own = sum(int(line.split()[1]) for line in lines if line.startswith(_COUNTED))
    return own + sum(used_kib(int(child)) for child in children)


def _look(pid: int, limit_kib: int, watch: Watch, stop: threading.Event) -> None:
    while not stop.wait(_LOOK_SECONDS):
        if used_kib(pid) > limit_kib:
            watch.exceeded = True
            kill_group(pid)
            return
