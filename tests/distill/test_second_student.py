"""A second student of the same teacher on the same data: nothing of the teacher is worked out again."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import copyfile
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

from distill import FolderShelf, RunIO, run
from distill.data import read_dataset
from distill.evaluate import score, score_of
from distill.model import load
from distill.students.resnet import Block
from stillhouse.spec.events import Finished
from tests.distill.conftest import resolved

TRIAL = 3 * 2
"""Two rows through three blocks: a network that came in files is tried before anything is spent."""


@pytest.fixture(scope="module")
def teacher_folder(digits_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small resnet that has learnt a little."""
    made, folder = tmp_path_factory.mktemp("made"), tmp_path_factory.mktemp("teacher")
    architecture = {"name": "resnet", "depth": 8, "width": 4}
    spec = resolved(digits_file, teacher={"train": {"architecture": architecture, "epochs": 1}}, training={"epochs": 1})
    run(spec, RunIO(digits_file, None, made, threads=1), lambda event: None)
    copyfile(made / "teacher.safetensors", folder / "model.safetensors")
    copyfile(made / "teacher.json", folder / "config.json")
    return folder


@contextmanager
def counting_blocks() -> Iterator[list[int]]:
    """Rows that went through each call of a residual block: only the teacher has some."""
    seen: list[int] = []

    def note(module: nn.Module, given: Any, out: torch.Tensor) -> None:
        if isinstance(module, Block):
            seen.append(len(out))

    handle = register_module_forward_hook(note)
    try:
        yield seen
    finally:
        handle.remove()


def job(digits_file: Path, teacher_folder: Path, shelf: Path, output: Path, **training: Any) -> Finished:
    spec = resolved(
        digits_file,
        teacher={"model": "mdl_00000000000000000000000000"},
        evaluation={"baseline": True, "teacher_gate": "on"},
        training={"epochs": 1, **training},
    )
    output.mkdir()
    io = RunIO(digits_file, teacher_folder, output, shelf=FolderShelf(shelf), threads=1)
    return run(spec, io, lambda event: None)


def test_the_teacher_of_a_second_student_is_never_run_and_reported_as_before(
    digits_file: Path, teacher_folder: Path, tmp_path: Path
) -> None:
    (shelf := tmp_path / "shelf").mkdir()
    with counting_blocks() as seen:
        first = job(digits_file, teacher_folder, shelf, tmp_path / "first")
    data = read_dataset(digits_file)
    # Three blocks; every row once, the tiles filled up.
    every = sum(len(rows) for rows in data.rows.values())
    assert 3 * every <= sum(seen) < 3 * (every + 3 * 32) + TRIAL
    with counting_blocks() as seen:
        second = job(digits_file, teacher_folder, shelf, tmp_path / "second", seed=5)
    assert sum(seen) <= TRIAL
    assert second.report.models[0] == first.report.models[0]
    found = score(load(teacher_folder), data, "test")
    assert first.report.models[0].errors == found.rows - found.correct
    assert first.report.models[0].loss == pytest.approx(found.loss, rel=1e-5)


@pytest.mark.usefixtures("bf16_everywhere")
def test_outputs_in_bf16_are_kept_apart_and_near_those_in_fp32(
    digits_file: Path, teacher_folder: Path, tmp_path: Path
) -> None:
    (shelf := tmp_path / "shelf").mkdir()
    full = job(digits_file, teacher_folder, shelf, tmp_path / "full")
    before = set(shelf.iterdir())
    half = job(digits_file, teacher_folder, shelf, tmp_path / "half", precision="bf16")
    assert len(before) == 2  # of the training rows, and of those held out
    assert len(set(shelf.iterdir()) - before) == 1  # what is held out is measured in fp32 whatever the training
    assert half.report.models[0] == full.report.models[0]
    differences = [
        abs(point.accuracy - other.accuracy)
        for point, other in zip(half.report.models, full.report.models, strict=True)
    ]
    assert max(differences) < 0.1
    with counting_blocks() as seen:
        job(digits_file, teacher_folder, shelf, tmp_path / "half again", precision="bf16", seed=3)
    assert sum(seen) <= TRIAL


def test_a_score_of_given_logits_is_that_of_the_network_that_gave_them(digits_file: Path, teacher_folder: Path) -> None:
    data, net = read_dataset(digits_file), load(teacher_folder)
    with torch.no_grad():
        logits = net(data.inputs(data.rows["test"]))
    ours, theirs = score_of(logits, data, "test"), score(net, data, "test")
    assert (ours.correct, ours.rows) == (theirs.correct, theirs.rows)
    assert ours.loss == pytest.approx(theirs.loss, rel=1e-5)
    assert torch.equal(ours.classes, theirs.classes)


def test_a_teacher_that_came_in_files_is_timed_once_on_a_machine(
    digits_file: Path, teacher_folder: Path, tmp_path: Path
) -> None:
    spec = resolved(
        digits_file,
        teacher={"model": "mdl_00000000000000000000000000"},
        evaluation={"baseline": False},
        export={"onnx": True},
        training={"epochs": 1},
    )
    reports = []
    for name in ("first", "second"):
        (output := tmp_path / name).mkdir()
        io = RunIO(digits_file, teacher_folder, output, latencies=tmp_path / "latencies", threads=1)
        reports.append(run(spec, io, lambda event: None).report)
    first, second = (report.models[0].latency for report in reports)
    assert [entry.batch for entry in first] == [1, 64]
    assert not any(entry.remembered for entry in first)
    assert second == [entry.model_copy(update={"remembered": True}) for entry in first]
    assert not any(entry.remembered for entry in reports[1].models[1].latency), "the student is timed in each job"
