"""Promises that need processes of their own: the same bits twice, and a warm parent that is safe to fork."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import distill
from distill.warm import ENVIRONMENT
from tests.distill.conftest import resolved

ROOT = str(Path(distill.__file__).parents[1])

JOB = """
import hashlib, json, sys
from pathlib import Path
from stillhouse.spec import JobSpec
import distill

spec, dataset, output, threads = JobSpec.model_validate_json(sys.argv[1]), *map(Path, sys.argv[2:4]), int(sys.argv[4])

def job():
    points = []
    output.mkdir()
    io = distill.RunIO(dataset=dataset, teacher=None, output=output, threads=threads)
    finished = distill.run(spec, io, lambda e: points.extend(e.points) if e.type == "metrics" else None)
    files = {f.name: f.sha256 for f in finished.files if f.kind in ("weights", "teacher_weights")}
    return files, hashlib.sha256("".join(p.model_dump_json() for p in points).encode()).hexdigest()
"""


def _python(script: str, *arguments: str, **environment: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, *arguments],
        env={**os.environ, "PYTHONPATH": ROOT, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_two_processes_with_as_many_threads_train_the_same_bits(digits_file: Path, tmp_path: Path) -> None:
    spec = resolved(
        digits_file,
        # Large enough that two threads share the work of a layer.
        teacher={"train": {"architecture": {"name": "mlp", "hidden": [512], "dropout": 0.2}, "epochs": 2}},
        student={"name": "cnn", "channels": [16, 32]},
        training={"epochs": 2, "batch_size": 256, "augmentation": {"crop_padding": 1}},
        finetune={"epochs": 1},
    ).model_dump_json()
    script = JOB + "print(json.dumps(job()))"
    first, second = (_python(script, spec, str(digits_file), str(tmp_path / name), "2") for name in ("a", "b"))
    assert first == second
    assert set(first[0]) == {"model.safetensors", "teacher.safetensors"}


def test_a_warm_parent_has_one_thread_and_its_child_trains_and_exports(digits_file: Path, tmp_path: Path) -> None:
    script = (
        """
import os, sys
from distill.warm import warm
warm()
import torch
before = len(os.listdir("/proc/self/task"))
cuda = torch.cuda.is_initialized()
"""
        + JOB
        + """
pid = os.fork()
if pid == 0:
    modules = set(sys.modules)
    files, _ = job()
    late = sorted(set(sys.modules) - modules)
    (output / "late").write_text(json.dumps(late))
    os._exit(0)
_, status = os.waitpid(pid, 0)
late = json.loads((output / "late").read_text())
print(json.dumps([before, cuda, status, late, len(os.listdir("/proc/self/task"))]))
"""
    )
    spec = resolved(
        digits_file, evaluation={"baseline": True}, export={"onnx": True}, student={"name": "cnn", "channels": [4, 4]}
    ).model_dump_json()
    arguments = (spec, str(digits_file), str(tmp_path / "out"), "2")
    before, cuda, status, late, after = _python(script, *arguments, **ENVIRONMENT)
    assert (before, cuda, status, after) == (1, False, 0, 1)
    assert (tmp_path / "out" / "model.onnx").exists()
    assert late == []  # what the child had to import itself was not warmed


def test_a_warm_parent_may_be_started_without_that_environment(digits_file: Path, tmp_path: Path) -> None:
    script = (
        """
import os, sys
from distill.warm import warm
warm()
"""
        + JOB
        + """
pid = os.fork()
if pid == 0:
    job()
    os._exit(0)
print(json.dumps(os.waitpid(pid, 0)[1]))
"""
    )
    spec = resolved(digits_file).model_dump_json()
    without = dict.fromkeys(ENVIRONMENT, "")
    assert _python(script, spec, str(digits_file), str(tmp_path / "out"), "2", **without) == 0
