"""Does bf16 cost accuracy? The same jobs in both precisions, on real images, over several seeds.

The builtin digits, a resnet-20 as teacher and a cnn 16-32-64 as student, both trained in that precision, and the
baseline beside them: what is compared is what a job reports for the test split. Seeds are paired, so the difference of
each pair has the seed's luck taken out.
"""

import statistics
import tempfile
from pathlib import Path
from typing import Any

import distill
from core.ingest_child import ingest
from distill.warm import warm
from stillhouse.spec import DataFacts, JobSpec, Limits, resolve
from stillhouse.spec.upload import IngestRequest

SEEDS = range(5)
ROLES = ("teacher", "student", "baseline")


def measure(folder: Path) -> None:
    """Print errors on the test split in fp32 and bf16, and their difference."""
    warm()
    stored = ingest(IngestRequest(builtin="digits", output=str(folder / "digits.safetensors")))
    facts = stored.dataset.facts
    found = {
        precision: [errors(folder / "digits.safetensors", facts, precision=precision, seed=seed) for seed in SEEDS]
        for precision in ("fp32", "bf16")
    }
    print(f"\nerrors of {facts.rows['test']} test digits over {len(SEEDS)} seeds, mean ± standard deviation:")
    for role in ROLES:
        full, half = ([run[role] for run in found[precision]] for precision in ("fp32", "bf16"))
        difference = [b - a for a, b in zip(full, half, strict=True)]
        print(f"  {role:9} fp32 {_spread(full)}, bf16 {_spread(half)}, bf16 - fp32 {_spread(difference)}", flush=True)


def errors(dataset: Path, facts: DataFacts, *, precision: str, seed: int) -> dict[str, int]:
    """Test rows each network of one job gets wrong, by role."""
    training = {"precision": precision, "seed": seed}
    given: dict[str, Any] = {
        "dataset": {"builtin": "digits"},
        "teacher": {"train": {"architecture": {"name": "resnet", "depth": 20}, "epochs": 15, **training}},
        "student": {"name": "cnn", "channels": [16, 32, 64]},
        "training": {"epochs": 15, **training},
        "evaluation": {"teacher_gate": "off"},
        "export": {"onnx": False},
    }
    with tempfile.TemporaryDirectory() as out:
        spec = resolve(JobSpec.model_validate(given), facts, Limits())
        finished = distill.run(spec, distill.RunIO(dataset, None, Path(out), threads=1), lambda event: None)
    return {model.role: model.errors for model in finished.report.models}


def _spread(values: list[int]) -> str:
    return f"{statistics.mean(values):5.2f} ± {statistics.stdev(values):.2f}"
