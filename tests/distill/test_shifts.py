"""A teacher whose answers are averaged over small shifts of the image."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from distill import FolderShelf
from distill.ensemble import Mixture
from distill.model import load
from distill.shifts import Shifted
from tests.distill.conftest import digits
from tests.distill.test_run import Job

TEACHER: dict[str, Any] = {"train": {"architecture": {"name": "mlp", "hidden": [32]}, "epochs": 3}}


def shifted(image: np.ndarray, down: int, right: int) -> np.ndarray:
    """Pixel by pixel, zeros entering."""
    out = np.zeros_like(image)
    _, height, width = image.shape
    for row in range(height):
        for column in range(width):
            if 0 <= row - down < height and 0 <= column - right < width:
                out[:, row, column] = image[:, row - down, column - right]
    return out


def test_the_mean_is_over_every_shift_in_both_directions() -> None:
    images = np.random.default_rng(0).normal(size=(3, 2, 4, 5))
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(40, 7), nn.ReLU(), nn.Linear(7, 6)).double()
    views = [
        np.stack([shifted(image, down, right) for image in images]) for down in range(-2, 3) for right in range(-2, 3)
    ]
    with torch.no_grad():
        expected = np.mean([net(torch.from_numpy(view)).numpy() for view in views], axis=0)
        found = Shifted(net, 2)(torch.from_numpy(images)).numpy()
    assert len(views) == 25
    assert np.allclose(found, expected, rtol=1e-12)


def test_answers_in_bf16_are_added_up_in_fp32() -> None:
    class Halves(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.full((len(x), 2), 1 + 2**-7, dtype=torch.bfloat16)  # 9 of them are no bf16 number

    found = Shifted(Halves(), 1)(torch.zeros(3, 1, 4, 4))
    assert found.dtype == torch.float32
    assert torch.allclose(found, torch.full((3, 2), 1 + 2**-7), rtol=1e-6)


def test_a_student_learns_the_mean_and_it_is_kept_apart_from_the_teachers_own_outputs(
    digits_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "cache").mkdir()
    first = Job(digits_file, tmp_path / "first", teacher=TEACHER)
    folder = tmp_path / "teacher"
    folder.mkdir()
    for name, made in (("model.safetensors", "teacher.safetensors"), ("config.json", "teacher.json")):
        (folder / name).write_bytes((first.output / made).read_bytes())

    def job(name: str, by: int) -> Job:
        io = {"teacher": folder, "shelf": FolderShelf(tmp_path / "cache")}
        return Job(digits_file, tmp_path / name, io=io, teacher={"model": "mdl_" + "0" * 26, "mean_over_shifts": by})

    plain, mean, again = job("plain", 0), job("mean", 1), job("again", 1)
    assert "used again" not in mean.lines()
    assert "used again" in again.lines()
    assert mean.series("distilling/loss_kd") == again.series("distilling/loss_kd") != plain.series("distilling/loss_kd")
    assert mean.report.models[0].architecture == "mlp 64-32-10, mean over 9 shifts"
    # The report measures the teacher as it taught.
    x, y, split = digits()
    net = Shifted(load(folder), 1)
    with torch.no_grad():
        wrong = net(torch.from_numpy(x[split == 2]).float()).argmax(1).numpy() != y[split == 2]
    assert mean.report.models[0].errors == wrong.sum()


def test_the_mean_of_an_ensemble_is_over_its_one_voice(digits_file: Path, tmp_path: Path) -> None:
    members = {"ensemble": {"members": [TEACHER, TEACHER]}}
    job = Job(digits_file, tmp_path / "out", teacher={**members, "mean_over_shifts": 1})
    assert job.report.models[0].architecture == "ensemble of mlp 64-32-10, mlp 64-32-10, mean over 9 shifts"
    nets = []
    for i in (0, 1):
        folder = tmp_path / str(i)
        folder.mkdir()
        (folder / "model.safetensors").write_bytes((job.output / f"teacher-{i}.safetensors").read_bytes())
        (folder / "config.json").write_bytes((job.output / f"teacher-{i}.json").read_bytes())
        nets.append(load(folder))
    voice = Shifted(Mixture(nets, weights=[1, 1], temperatures=[4.0, 4.0], temperature=4.0), 1)
    x, y, split = digits()
    with torch.no_grad():
        wrong = voice(torch.from_numpy(x[split == 2]).float()).argmax(1).numpy() != y[split == 2]
    assert job.report.models[0].errors == wrong.sum()
