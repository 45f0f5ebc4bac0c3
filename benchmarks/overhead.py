"""What the service costs on top of the engine.

    python -m benchmarks.overhead [--rounds 5] [--jobs 30] [--skip-polling]

1. One job through the service (submit → final) against the same `distill.run` call in a plain, warmed-up script.
   Both take turns; the ratio of the medians is printed. Target: at most 1.05.
2. Submit → first training step on a warm worker, over many jobs. Target: p50 ≤ 0.3 s, p95 ≤ 1 s.
3. Polls: see benchmarks/polling.py, which this runs last.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks import polling
from core.ingest_child import ingest
from stillhouse.client import Client
from stillhouse.spec import JobSpec, Limits, resolve
from stillhouse.spec.upload import IngestRequest

ROOT = Path(__file__).resolve().parents[1]
LONG_JOB: dict[str, Any] = {
    "teacher": {"train": {"architecture": {"name": "mlp", "hidden": [400, 400]}, "epochs": 40}},
    "dataset": {"builtin": "digits"},
    "student": {"name": "cnn", "channels": [8, 16]},
    "training": {"epochs": 120},
}
SHORT_JOB: dict[str, Any] = {
    "teacher": {"train": {"architecture": {"name": "mlp", "hidden": [64]}, "epochs": 3}},
    "dataset": {"builtin": "digits"},
    "student": {"name": "mlp", "hidden": [16]},
    "training": {"epochs": 3},
    "evaluation": {"baseline": False},
}


def plain_script(order: Path) -> None:
    """The other side of the comparison, run as a process of its own: the engine call and nothing else."""
    import distill
    from distill.warm import warm

    warm()
    given = json.loads(order.read_text())
    with tempfile.TemporaryDirectory() as out:
        io = distill.RunIO(dataset=Path(given["dataset"]), teacher=None, output=Path(out), threads=given["threads"])
        spec = JobSpec.model_validate_json(given["spec"])
        start = time.perf_counter()
        distill.run(spec, io, lambda _event: None)
        print(time.perf_counter() - start)


def plain_seconds(order: Path) -> float:
    """Seconds of the engine call in a fresh, warmed-up process."""
    command = [sys.executable, "-m", "benchmarks.overhead", "--plain", str(order)]
    return float(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()[-1])


def service_seconds(client: Client, spec: dict[str, Any]) -> float:
    """Seconds from sending the job to the record of its success, by this process's clock."""
    start = time.time()
    job = client.jobs.wait(client.jobs.create(spec).id)
    assert job.finished_at is not None, job.error
    assert job.status == "succeeded", job.error
    return job.finished_at.timestamp() - start


def first_step_seconds(client: Client) -> float:
    """Seconds from sending a job to its first training step."""
    start = time.time()
    job = client.jobs.wait(client.jobs.create(SHORT_JOB).id)
    assert job.status == "succeeded", job.error
    step = next(event for event in client.jobs.events(job.id) if event.message.startswith("The first training step"))
    return datetime.fromisoformat(step.data["at"]).timestamp() - start


@contextmanager
def running_service(folder: Path, threads: int) -> Iterator[Client]:
    """`stillhouse up` on a fresh folder."""
    ready = folder / "ready.json"
    env = os.environ | {"STILLHOUSE_TRAINER_THREADS": str(threads), "XDG_CONFIG_HOME": str(folder / "config")}
    command = [sys.executable, "-m", "stillhouse", "up", "--port", "0"]
    command += ["--data-dir", str(folder / "data"), "--json-ready", str(ready)]
    process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.DEVNULL)
    try:
        while not ready.exists():
            if process.poll() is not None:
                raise SystemExit("the service did not start")
            time.sleep(0.1)
        found = json.loads(ready.read_text())
        with Client(found["url"], found["key"]) as client:
            yield client
    finally:
        process.terminate()
        process.wait()


def overhead(client: Client, folder: Path, rounds: int, threads: int) -> None:
    """Print the ratio of the whole job to the engine call."""
    dataset = folder / "digits.safetensors"
    stored = ingest(IngestRequest(builtin="digits", output=str(dataset)))
    spec = resolve(JobSpec.model_validate(LONG_JOB), stored.dataset.facts, Limits())
    order = folder / "order.json"
    order.write_text(json.dumps({"dataset": str(dataset), "threads": threads, "spec": spec.model_dump_json()}))
    ours, plain = [], []
    for turn in range(rounds):
        plain.append(plain_seconds(order))
        ours.append(service_seconds(client, LONG_JOB))
        print(f"  round {turn + 1}: plain {plain[-1]:.2f} s, service {ours[-1]:.2f} s", flush=True)
    a, b = statistics.median(plain), statistics.median(ours)
    print(f"one job: plain script {a:.2f} s, service {b:.2f} s, ratio {b / a:.3f} (target ≤ 1.05)")


def first_steps(client: Client, jobs: int) -> None:
    """Print how long a job waits for its first step."""
    took = sorted(first_step_seconds(client) for _ in range(jobs))
    p50, p95 = took[len(took) // 2], took[min(len(took) - 1, round(len(took) * 0.95))]
    print(f"submit → first step: p50 {p50:.3f} s, p95 {p95:.3f} s over {jobs} jobs (target ≤ 0.3 s, ≤ 1 s)")


def main() -> None:
    """Run all three."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--skip-polling", action="store_true")
    parser.add_argument("--plain", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.plain is not None:
        plain_script(given.plain)
        return
    with (
        tempfile.TemporaryDirectory(prefix="overhead-") as folder,
        running_service(Path(folder), given.threads) as client,
    ):
        service_seconds(client, SHORT_JOB)  # the first job of a worker waits for its imports
        first_steps(client, given.jobs)
        overhead(client, Path(folder), given.rounds, given.threads)
    if not given.skip_polling:
        sys.argv = sys.argv[:1]
        polling.main()


if __name__ == "__main__":
    main()
