"""Starting each side as a process of its own, in turns, and keeping what it says."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
BENCH = ROOT / ".bench"
"""Where environments of others are made; not part of the project, and free to be removed."""
TORCHDISTILL = "torchdistill==1.1.5"


@dataclass
class Timings:
    """Seconds of each side, round after round."""

    wall: dict[str, list[float]] = field(default_factory=dict)
    cpu: dict[str, list[float]] = field(default_factory=dict)
    last: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, side: str, found: dict[str, Any]) -> None:
        """Keep one measurement."""
        self.wall.setdefault(side, []).append(found["seconds"])
        self.cpu.setdefault(side, []).append(found["cpu"])
        self.last[side] = found

    def ratio(self, over: str, under: Sequence[str]) -> tuple[float, float]:
        """Median seconds of `over` by those of the sum of `under`, by the clock and by the processors' time."""
        wall, cpu = (
            statistics.median(times[over]) / sum(statistics.median(times[side]) for side in under)
            for times in (self.wall, self.cpu)
        )
        return wall, cpu


def run(side: str, order: dict[str, Any], *, python: str | None = None) -> dict[str, Any]:
    """One turn of one side: what its process printed."""
    command = {
        "textbook": [sys.executable, str(HERE / "textbook.py")],
        "torchdistill": [python or "", str(HERE / "with_torchdistill.py")],
    }.get(side, [sys.executable, "-m", "benchmarks.speed.engine"])
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump({**order, "what": side}, file)
        file.flush()
        env = os.environ | {"OMP_NUM_THREADS": str(order["threads"])}
        done = subprocess.run([*command, file.name], cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"The side {side!r} failed:\n{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def with_torchdistill() -> str:
    """The interpreter of an environment that has torchdistill and our version of torch. Made by pip the first time."""
    folder = BENCH / "torchdistill"
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        print(f"Making an environment for {TORCHDISTILL} in {folder.relative_to(ROOT)} (torch is large) …", flush=True)
        same = [f"{name}=={version(name).partition('+')[0]}" for name in ("torch", "torchvision")]
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", TORCHDISTILL, *same]
        subprocess.run(install, check=True)
        (folder / "ready").touch()
    return str(python)
