"""How long a teacher takes, remembered on the machine that timed it: a second job need not time it again."""

import hashlib
import json
import os
import platform
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile

from pydantic import TypeAdapter, ValidationError

from distill.export import runtime
from stillhouse.spec.report import Latency

_TIMES = TypeAdapter(list[Latency])
_GOOD_FOR_SECONDS = 24 * 3600
"""A machine may have been busy while it timed: not for ever."""


class Latencies:
    """A folder of this machine's measurements. Whatever is wrong with it costs a measurement and nothing else."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def recall(self, fingerprint: str, shape: Sequence[int]) -> list[Latency] | None:
        """What was measured of the network with this `fingerprint` on rows of this `shape` within a day."""
        if self._folder is None:
            return None
        path = self._folder / _name(fingerprint, shape)
        try:
            if time.time() - path.stat().st_mtime > _GOOD_FOR_SECONDS:
                return None
            found = _TIMES.validate_json(path.read_bytes())
        except (OSError, ValidationError):
            return None
        return [entry.model_copy(update={"remembered": True}) for entry in found]

    def remember(self, fingerprint: str, shape: Sequence[int], times: list[Latency]) -> None:
        """Keep what was measured: whole, or not at all."""
        if self._folder is None:
            return
        with suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            with NamedTemporaryFile(dir=self._folder, delete=False) as file:
                file.write(_TIMES.dump_json(times))
            os.replace(file.name, self._folder / _name(fingerprint, shape))


def _name(fingerprint: str, shape: Sequence[int]) -> str:
    """Of everything the time depends on."""
    parts = [fingerprint, list(shape), _processor(), os.cpu_count(), runtime.VERSION, runtime.THREADS]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest() + ".json"


def _processor() -> str:
    """Its model, where the kernel tells it."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
