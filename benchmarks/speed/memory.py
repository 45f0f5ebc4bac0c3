"""The memory a job takes, and whether it grows with the data.

A trainer is forked from a process that has everything imported, and shares those pages with it and with every other
trainer. What a job takes is what it adds: its anonymous memory (RssAnon in /proc/PID/status) at its greatest, less that
of the same process before the job, read every 2 ms from outside. Pages of the dataset file are not in it, as they are
the kernel's to keep or drop: RssFile is printed beside it. The bound counts the data all the same.

    python -m benchmarks.speed.memory order.json      the process that is watched
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import distill
from benchmarks.speed import sides, workload
from distill.data import read_dataset
from distill.warm import warm
from stillhouse.spec import DataFacts, JobSpec, Limits, resolve
from stillhouse.spec.students import architecture_of

SMALL_TEACHER: dict[str, Any] = {"name": "cnn", "channels": [16, 32]}
_GROWN = 10


@dataclass(frozen=True)
class Peak:
    """Bytes a job added at most: anonymous, and of files."""

    anonymous: int
    files: int


def measure(folder: Path, *, threads: int, rows: int = 10_000) -> None:
    """Print the peak of the job with ResNet-18, and those of a job on `rows` images and on ten times as many."""
    print("memory a job adds to a warm process (RssAnon; pages of the dataset file apart):")
    made = workload.make(folder / "memory", rows=2048)
    for precision in workload.precisions():
        spec = workload.spec(made.facts, precision=precision)
        peak = watched(spec, made.dataset, made.teacher, threads)
        student = architecture_of(spec.student).file_bytes(made.facts)
        teacher = (made.teacher / "model.safetensors").stat().st_size
        allowed = (made.dataset.stat().st_size + teacher + student) / 1e6 + 200
        print(f"  ResNet-18, {precision}: {_mb(peak)}; data + both models + 200 MB = {allowed:.0f} MB", flush=True)
    for count in (rows, rows * _GROWN):
        path = folder / f"{count}.safetensors"
        x, y = workload.images(count + 2 * workload.held_out(count), seed=1)
        facts = workload.store(path, x, y, rows=count)
        del x, y
        peak = watched(_plain(facts), path, None, threads)
        print(f"  {count:,} images, {path.stat().st_size / 1e6:.0f} MB on disk: {_mb(peak)}", flush=True)


def watched(spec: JobSpec, dataset: Path, teacher: Path | None, threads: int) -> Peak:
    """Run the job in a process of its own and look at its memory from outside."""
    with tempfile.TemporaryDirectory() as name:
        order = Path(name) / "order.json"
        given = {"spec": spec.model_dump_json(), "dataset": str(dataset), "threads": threads, "folder": name}
        order.write_text(json.dumps({**given, "teacher": None if teacher is None else str(teacher)}))
        command = [sys.executable, "-m", "benchmarks.speed.memory", str(order)]
        child = subprocess.Popen(command, cwd=sides.ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdout.readline()
        before = most = _resident(child.pid) or Peak(0, 0)
        child.stdin.write(b"go\n")
        child.stdin.flush()
        while child.poll() is None:
            now = _resident(child.pid) or most
            most = Peak(max(most.anonymous, now.anonymous), max(most.files, now.files))
            time.sleep(0.002)
    if child.returncode:
        raise SystemExit("the watched job failed")
    return Peak(most.anonymous - before.anonymous, most.files - before.files)


def _plain(facts: DataFacts) -> JobSpec:
    given = {
        "dataset": {"builtin": "digits"},
        "teacher": {"train": {"architecture": SMALL_TEACHER, "epochs": 1, "learning_rate": 0.005}},
        "student": workload.STUDENT,
        "training": {"epochs": 1, "batch_size": workload.BATCH, "learning_rate": workload.LEARNING_RATE},
        "evaluation": {"baseline": False},
    }
    return resolve(JobSpec.model_validate(given), facts, Limits())


def _resident(pid: int) -> Peak | None:
    """What a process holds; None when it has just ended."""
    try:
        lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        return Peak(*(1024 * int(lines[name].split()[0]) for name in ("RssAnon", "RssFile")))
    except (OSError, KeyError):
        return None


def _mb(peak: Peak) -> str:
    return f"{peak.anonymous / 1e6:.0f} MB (and {peak.files / 1e6:.0f} MB of mapped files)"


def main() -> None:
    """The process that is watched: make ready, wait for the word, run the job."""
    order = json.loads(Path(sys.argv[1]).read_text())
    warm()
    dataset, teacher = Path(order["dataset"]), order["teacher"]
    read_dataset(dataset)  # what is imported late is imported now
    print("ready", flush=True)
    sys.stdin.readline()
    cache, output = Path(order["folder"], "cache"), Path(order["folder"], "output")
    cache.mkdir()
    output.mkdir()
    io = distill.RunIO(
        dataset=dataset,
        teacher=None if teacher is None else Path(teacher),
        output=output,
        shelf=distill.FolderShelf(cache),
        threads=order["threads"],
    )
    distill.run(JobSpec.model_validate_json(order["spec"]), io, lambda event: None)
    os._exit(0)


if __name__ == "__main__":
    main()
