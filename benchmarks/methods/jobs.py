"""Running one job in this process, and keeping what it found."""

import hashlib
import json
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import distill
from benchmarks.methods.conditions import Condition
from benchmarks.methods.setting import Setting, Stored
from stillhouse.spec import JobSpec


@dataclass(frozen=True)
class Found:
    """What a job found on the rows it was measured on."""

    key: str
    name: str
    accuracy: float
    teacher: float
    """Accuracy of the teacher on the same rows."""
    seconds: float


class Jobs:
    """Runs jobs, and remembers those that have run in a file beside the data."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._record = setting.folder / "jobs.jsonl"
        self._datasets: dict[tuple[int, bool], Stored] = {}
        self._found: dict[str, Found] = {}
        if self._record.exists():
            lines = self._record.read_text().splitlines()
            self._found = {entry["key"]: Found(**entry) for entry in map(json.loads, lines)}

    def accuracy(self, condition: Condition, seed: int, *, choosing: bool) -> Found:
        """What this way of training gives with this seed. A job that has run already is not run again."""
        stored = self._dataset(seed, choosing)
        spec = self._setting.spec(condition.losses, seed, stored.facts, **condition.other)
        key = _key(spec, stored, self._setting.teacher)
        if key not in self._found:
            self._found[key] = self._run(spec, stored, key, condition.name)
            with self._record.open("a") as record:
                record.write(json.dumps(asdict(self._found[key])) + "\n")
        return self._found[key]

    def _dataset(self, seed: int, choosing: bool) -> Stored:
        if (seed, choosing) not in self._datasets:
            self._datasets[seed, choosing] = self._setting.dataset(seed, choosing=choosing)
        return self._datasets[seed, choosing]

    def _run(self, spec: JobSpec, stored: Stored, key: str, name: str) -> Found:
        cache = self._setting.folder / "teacher outputs"
        cache.mkdir(exist_ok=True)
        shelf = distill.FolderShelf(cache)
        start = time.perf_counter()
        with tempfile.TemporaryDirectory(dir=self._setting.folder) as files:
            teacher = self._setting.teacher if spec.teacher.model else None
            io = distill.RunIO(dataset=stored.path, teacher=teacher, output=Path(files), shelf=shelf, threads=1)
            models = distill.run(spec, io, lambda _event: None).report.models
        return Found(key, name, models[1].accuracy, models[0].accuracy, time.perf_counter() - start)


def _key(spec: JobSpec, stored: Stored, teacher: Path) -> str:
    weights = hashlib.sha256((teacher / "model.safetensors").read_bytes()).hexdigest()
    parts: list[Any] = [spec.model_dump(mode="json"), stored.name, stored.facts.rows, weights]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
