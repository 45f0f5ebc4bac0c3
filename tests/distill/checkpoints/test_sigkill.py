"""SIGKILL between any two file writes, again and again: the run that comes to its end has the bits of one alone."""

import os
import subprocess
import sys
from pathlib import Path

import distill
from tests.distill.checkpoints.runs import Attempt, few_digits
from tests.distill.conftest import resolved


def test_victims_of_sigkill_leave_what_the_next_needs(tmp_path: Path) -> None:
    dataset = few_digits(tmp_path / "digits.safetensors")
    spec = resolved(
        dataset,
        teacher={"train": {"architecture": {"name": "mlp", "hidden": [16]}, "epochs": 1}},
        training={"epochs": 2, "batch_size": 64, "augmentation": {"crop_padding": 1}},
        teacher_outputs={"views": 2},
        evaluation={"baseline": True, "teacher_gate": "off"},
    )
    folder = tmp_path / "victims"
    folder.mkdir()
    command = [sys.executable, "-m", "tests.distill.checkpoints.victims", spec.model_dump_json()]
    done = subprocess.run(
        [*command, str(dataset), str(folder), "0"],
        env={**os.environ, "PYTHONPATH": str(Path(distill.__file__).parents[1]), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    deaths = int(done.stdout)
    assert deaths > 2
    alone = Attempt(spec, dataset, tmp_path / "alone")
    made = (folder / f"out-{deaths}" / "model.safetensors").read_bytes()
    assert made == (tmp_path / "alone" / "model.safetensors").read_bytes()
    assert alone.report["models"]
    assert not list(folder.rglob("*.partial"))
