"""What a student makes of outputs that were kept: the same as of a teacher that works along, to the bit."""

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distill import FolderShelf, RunIO, run
from distill.augment import view
from distill.data import Dataset, read_dataset
from stillhouse.spec.events import LogLine, PhaseStarted
from stillhouse.spec.training import Augmentation
from tests.distill.conftest import digits, resolved, store
from tests.distill.test_processes import ROOT
from tests.distill.test_teacher_outputs import everything, made, net


def _weights(
    dataset: Path, out: Path, *, shelf: FolderShelf | None = None, said: list[Any] | None = None, **spec: Any
) -> bytes:
    out.mkdir()
    events = [] if said is None else said
    run(resolved(dataset, **spec), RunIO(dataset, None, out, shelf, threads=1), events.append)
    return (out / "model.safetensors").read_bytes()


RESNET = {"train": {"architecture": {"name": "resnet", "depth": 8, "width": 4}, "epochs": 1}}
MOVING = {"crop_padding": 1, "horizontal_flip": True, "colour_jitter": 0.2}


@pytest.mark.parametrize(
    ("teacher", "student"),
    [
        ({"train": {"architecture": {"name": "mlp", "hidden": [33, 17]}, "epochs": 1}}, {"name": "mlp", "hidden": [9]}),
        (RESNET, {"name": "cnn", "channels": [4, 8]}),
    ],
    ids=["mlp", "resnet with batch norm"],
)
@pytest.mark.parametrize("batch_size", [50, 128])
def test_training_from_the_cache_is_training_with_the_live_teacher_bit_for_bit(
    digits_file: Path, tmp_path: Path, teacher: dict[str, Any], student: dict[str, Any], batch_size: int
) -> None:
    shelf = FolderShelf(tmp_path)
    job: dict[str, Any] = {
        "teacher": teacher,
        "student": student,
        "training": {"epochs": 2, "batch_size": batch_size, "augmentation": {}},
    }
    said: list[Any] = []
    fresh = _weights(digits_file, tmp_path / "fresh", shelf=shelf, **job)
    found = _weights(digits_file, tmp_path / "found", shelf=shelf, said=said, **job)
    live = _weights(digits_file, tmp_path / "live", **job, teacher_outputs={"views": "live"})
    assert fresh == found == live
    assert "used again" in "".join(e.message for e in said if isinstance(e, LogLine))


def test_as_many_views_as_epochs_are_the_live_teacher_bit_for_bit(digits_file: Path, tmp_path: Path) -> None:
    job: dict[str, Any] = {
        "teacher": RESNET,
        "student": {"name": "cnn", "channels": [4, 8]},
        "training": {"epochs": 3, "batch_size": 50, "augmentation": MOVING},
    }
    shelf = FolderShelf(tmp_path)
    live = _weights(digits_file, tmp_path / "live", **job, teacher_outputs={"views": "live"})
    auto = _weights(digits_file, tmp_path / "auto", shelf=shelf, **job)  # a dear teacher: as many views as epochs
    kept = _weights(digits_file, tmp_path / "kept", shelf=shelf, **job, teacher_outputs={"views": 3})
    assert live == auto == kept
    assert len([p for p in tmp_path.iterdir() if p.is_file()]) == 1
    two = _weights(digits_file, tmp_path / "two", **job, teacher_outputs={"views": 2})
    assert two != live


_ELSEWHERE = """
import json, sys
from pathlib import Path
from distill import FolderShelf, RunIO, run
from stillhouse.spec import JobSpec
run(JobSpec.model_validate_json(sys.argv[1]),
    RunIO(Path(sys.argv[2]), None, Path(sys.argv[3]), FolderShelf(Path(sys.argv[4])), threads=1), lambda event: None)
"""


def test_outputs_kept_by_another_process_give_the_same_student(digits_file: Path, tmp_path: Path) -> None:
    job: dict[str, Any] = {"teacher": RESNET, "student": {"name": "cnn", "channels": [4, 8]}}
    (tmp_path / "theirs").mkdir()
    spec = resolved(digits_file, **job).model_dump_json()
    done = subprocess.run(
        [sys.executable, "-c", _ELSEWHERE, spec, str(digits_file), str(tmp_path / "theirs"), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": ROOT},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said: list[Any] = []
    found = _weights(digits_file, tmp_path / "ours", shelf=FolderShelf(tmp_path), said=said, **job)
    assert "used again" in "".join(e.message for e in said if isinstance(e, LogLine))
    assert (tmp_path / "theirs" / "model.safetensors").read_bytes() == found
    assert _weights(digits_file, tmp_path / "live", **job, teacher_outputs={"views": "live"}) == found


def test_the_baseline_sees_the_views_the_student_sees(
    digits_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, int]] = []

    def noted(data: Dataset, augmentation: Augmentation, seed: int, stream: str, epoch: int) -> Any:
        asked.append((stream, epoch))
        return view(data, augmentation, seed, stream, epoch)

    monkeypatch.setattr("distill.train.view", noted)
    _weights(
        digits_file,
        tmp_path / "out",
        training={"epochs": 5, "augmentation": {"crop_padding": 1}},
        teacher_outputs={"views": 2},
        evaluation={"baseline": True, "teacher_gate": "off"},
    )
    epochs = [number for stream, number in asked if stream == "student"]
    assert epochs == [0, 1, 0, 1, 0] * 2


def test_top_k_of_all_but_one_class_distils_as_all_do(digits_file: Path, tmp_path: Path) -> None:
    events: dict[str, list[Any]] = {"dense": [], "few": []}
    _weights(digits_file, tmp_path / "dense", said=events["dense"])
    _weights(digits_file, tmp_path / "few", said=events["few"], teacher_outputs={"top_k": 9})
    dense, few = ([p for e in said if e.type == "metrics" for p in e.points] for said in events.values())
    assert [p.name for p in dense] == [p.name for p in few]
    assert all(math.isclose(a.value, b.value, rel_tol=1e-3, abs_tol=5e-3) for a, b in zip(dense, few, strict=True))


def test_a_live_teacher_that_was_asked_for_labels_nothing(digits_file: Path, tmp_path: Path) -> None:
    said: list[Any] = []
    _weights(digits_file, tmp_path / "out", said=said, teacher_outputs={"views": "live"})
    assert "labelling" not in [e.phase for e in said if isinstance(e, PhaseStarted)]
    assert "It was asked for live" in "".join(e.message for e in said if isinstance(e, LogLine))


def test_unlabelled_rows_have_outputs_too(tmp_path: Path) -> None:
    x, y, split = digits()
    y = np.where((split == 0) & (np.arange(len(y)) % 3 > 0), -1, y)
    path = store(tmp_path / "partly.safetensors", x, y, split, tuple("0123456789"))
    data = read_dataset(path)
    assert everything(made(net(data), data)).shape == (1257, 10)
    first = _weights(path, tmp_path / "a", shelf=FolderShelf(tmp_path))
    assert first == _weights(path, tmp_path / "b", teacher_outputs={"views": "live"})
