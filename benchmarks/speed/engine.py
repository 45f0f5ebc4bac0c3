"""Our side: one of the things measured, in a process of its own that has what the fork server of trainers has.

python -m benchmarks.speed.engine order.json
"""

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import distill
from benchmarks.speed import workload
from distill.data import Dataset, measure, read_dataset
from distill.device import arithmetic, heap_kept, repeatable
from distill.model import load
from distill.reporter import Reporter
from distill.stages import Stage, stage_of
from distill.students import build
from distill.train import fit
from distill.warm import warm
from stillhouse.spec import JobSpec
from stillhouse.spec.base import concrete
from stillhouse.spec.losses import Ce
from stillhouse.spec.states import Phase
from stillhouse.spec.students import architecture_of

_SILENT = Reporter(lambda event: None)


def job(order: dict[str, Any], *, seed: int) -> dict[str, object]:
    """A whole job, from the spec to the files."""
    started, cpu = time.perf_counter(), time.process_time()
    spec = _spec(order, seed=seed)
    with tempfile.TemporaryDirectory() as out:
        io = distill.RunIO(
            dataset=Path(order["dataset"]),
            teacher=Path(order["teacher"]),
            output=Path(out),
            shelf=distill.FolderShelf(Path(order["cache"])),
            # Whoever stores files knows their digests: the service looks once whether they are still true.
            dataset_sha256=order["dataset_sha256"],
            teacher_sha256=[order["teacher_sha256"]],
            latencies=Path(order["cache"], "latencies"),
            threads=order["threads"],
        )
        finished = distill.run(spec, io, lambda event: None)
        found = {"seconds": time.perf_counter() - started, "cpu": time.process_time() - cpu}
    stages = {stage.phase: stage.seconds for stage in finished.report.stages}
    parameters = [model.parameters for model in finished.report.models]
    return {**found, "stages": stages, "parameters": parameters}


def student(order: dict[str, Any]) -> dict[str, object]:
    """The student's training alone: the same `fit` on the labels, same settings, nothing read or written."""
    spec, data, stage = _ready(order)
    statistics = measure(data)
    torch.manual_seed(0)
    net = build(architecture_of(spec.student), data.facts, statistics.mean, statistics.std)
    started, cpu = time.perf_counter(), time.process_time()
    fit(net, [stage], data, None, _SILENT)
    return {"seconds": time.perf_counter() - started, "cpu": time.process_time() - cpu}


def teacher_pass(order: dict[str, Any]) -> dict[str, object]:
    """One pass of the teacher over the training split, in the precision of the job; and `whole`, over the dataset."""
    _, data, stage = _ready(order)
    net = load(order["teacher"])
    started, cpu = time.perf_counter(), time.process_time()
    with torch.no_grad():
        with arithmetic(stage.precision, data.x.device):
            for rows in data.chunks("train"):
                net(data.inputs(rows))
        found = {"seconds": time.perf_counter() - started, "cpu": time.process_time() - cpu}
        for rows in data.cut(data.held_out):  # what is measured is measured in float32
            net(data.inputs(rows))
    return {**found, "whole": {"seconds": time.perf_counter() - started, "cpu": time.process_time() - cpu}}


def _ready(order: dict[str, Any]) -> tuple[JobSpec, Dataset, Stage]:
    spec, data = _spec(order, seed=0), read_dataset(Path(order["dataset"]))
    stage = stage_of(spec.training, phase=Phase.DISTILLING, stream="student", losses=(Ce(kind="ce", weight=1.0),))
    assert concrete(spec.training.epochs) == order["epochs"]
    return spec, data, stage


def _spec(order: dict[str, Any], *, seed: int) -> JobSpec:
    facts = read_dataset(Path(order["dataset"])).facts
    return workload.spec(facts, precision=order["precision"], seed=seed)


def main() -> None:
    """Do what the order says and print what it took."""
    order = json.loads(Path(sys.argv[1]).read_text())
    warm()
    with heap_kept(), repeatable(torch.device("cpu"), order["threads"]):
        match order["what"]:
            case "job":
                found = job(order, seed=0)
            case "second student":
                found = job(order, seed=1)
            case "student alone":
                found = student(order)
            case _:
                found = teacher_pass(order)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
