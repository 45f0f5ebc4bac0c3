"""Whether the kernel has ended processes because memory ran out: its own count, before and after."""

from pathlib import Path

_COUNTERS = (Path("/sys/fs/cgroup/memory.events"), Path("/proc/vmstat"))
"""Of this container, where there is one; of the machine."""


def oom_kills() -> int | None:
    """How many so far. None when the kernel does not tell."""
    for path in _COUNTERS:
        try:
            lines = path.read_text().splitlines()
        except OSError:
            continue
        for line in lines:
            name, _, count = line.partition(" ")
            if name == "oom_kill":
                return int(count)
    return None
