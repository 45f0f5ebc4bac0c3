"""bf16 where the machine has it. Elsewhere it would be emulated, which costs time instead of saving it."""

from pathlib import Path

import pytest
import torch

from distill import FolderShelf, RunIO, run
from distill.device import has_bf16
from stillhouse.spec.events import Finished
from tests.distill.conftest import resolved

CPU = torch.device("cpu")
SENTENCE = "The spec asks for bf16, and this worker's cpu has no instructions for it: all was worked out in fp32."


def machine_with(patch: pytest.MonkeyPatch, **instructions: bool) -> None:
    patch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "cpu_name": "some", **instructions})


def job(digits_file: Path, folder: Path, precision: str, of: str = "training") -> Finished:
    train = {"architecture": {"name": "mlp", "hidden": [16]}, "epochs": 1}
    spec = resolved(
        digits_file,
        teacher={"train": {**train, "precision": precision if of == "teacher" else "fp32"}},
        training={"epochs": 1, "precision": precision if of == "training" else "fp32"},
    )
    (folder / "files").mkdir(parents=True)
    (shelf := folder.parent / "shelf").mkdir(exist_ok=True)
    io = RunIO(digits_file, None, folder / "files", shelf=FolderShelf(shelf), threads=1)
    return run(spec, io, lambda event: None)


def weights(finished: Finished) -> dict[str, str]:
    return {file.name: file.sha256 for file in finished.files if file.kind == "weights"}


@pytest.mark.parametrize("name", ["avx512_bf16", "amx_bf16", "bf16", "sve_bf16"])
def test_a_cpu_has_bf16_when_torch_names_instructions_for_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    machine_with(monkeypatch, **{name: True})
    assert has_bf16(CPU)
    machine_with(monkeypatch, **{name: False})
    assert not has_bf16(CPU)


@pytest.mark.parametrize("of", ["training", "teacher"])
def test_a_job_that_asks_for_bf16_where_there_is_none_is_one_in_fp32_and_says_so(
    of: str, digits_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine_with(monkeypatch)
    plain = job(digits_file, tmp_path / "plain", "fp32")
    asked = job(digits_file, tmp_path / "asked", "bf16", of)
    assert weights(asked) == weights(plain)
    assert [SENTENCE in found.report.warnings for found in (plain, asked)] == [False, True]
    # What the teacher said is kept as what it is: both jobs read the same file.
    assert len(list((tmp_path / "shelf").iterdir())) == 1


def test_a_job_that_asks_for_bf16_where_it_is_has_it(
    digits_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine_with(monkeypatch, avx512_bf16=True)
    plain, asked = (job(digits_file, tmp_path / name, name) for name in ("fp32", "bf16"))
    assert weights(asked) != weights(plain)
    assert SENTENCE not in asked.report.warnings
