"""The teacher's outputs, kept for later jobs: found again, told apart, and never trusted when damaged."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from distill import labels
from distill.data import Dataset, measure, read_dataset
from distill.reporter import Reporter
from distill.students import build
from stillhouse.spec.errors import JobFailure
from stillhouse.spec.states import Phase
from stillhouse.spec.students import Mlp

CPU = torch.device("cpu")


@pytest.fixture
def data(digits_file: Path) -> Dataset:
    return read_dataset(digits_file)


def teacher(data: Dataset) -> nn.Module:
    torch.manual_seed(0)
    found = measure(data)
    return build(Mlp(name="mlp", dropout=0.5), data.facts, found.mean, found.std)


def logits(net: nn.Module, data: Dataset) -> torch.Tensor:
    reporter = Reporter(lambda event: None)
    with reporter.phase(Phase.LABELLING, steps=len(data.chunks("train"))):
        return labels.teacher_logits(net, data, reporter)


def test_labels_are_those_of_the_teacher_in_eval_mode_without_gradient(data: Dataset) -> None:
    net = teacher(data).train()
    found = logits(net, data)
    assert not net.training
    assert not found.requires_grad
    assert found.dtype == torch.float32
    with torch.no_grad():
        torch.testing.assert_close(found, net(data.inputs(data.rows["train"])))


def test_a_teacher_with_an_infinite_output_cannot_teach(data: Dataset) -> None:
    net = teacher(data)
    nn.init.constant_(net.get_submodule("network.4").bias, torch.inf)  # type: ignore[arg-type]
    with pytest.raises(JobFailure) as failure:
        logits(net, data)
    assert failure.value.code == "outputs_not_finite"


def test_what_is_kept_is_found_again_bit_for_bit(tmp_path: Path, data: Dataset) -> None:
    made = logits(teacher(data), data)
    assert labels.read_cached(tmp_path, "key", (1257, 10)) is None
    assert labels.keep(tmp_path, "key", made)
    found = labels.read_cached(tmp_path, "key", (1257, 10))
    assert found is not None
    assert torch.equal(found, made)
    assert [p.name for p in tmp_path.iterdir()] == ["key.safetensors"]


def test_the_key_tells_data_teachers_and_thread_counts_apart(tmp_path: Path, digits_file: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(digits_file.read_bytes() + b" ")
    keys = [
        labels.cache_key(digits_file, "teacher", CPU),
        labels.cache_key(other, "teacher", CPU),
        labels.cache_key(digits_file, "another", CPU),
    ]
    torch.set_num_threads(2)
    keys.append(labels.cache_key(digits_file, "teacher", CPU))
    torch.set_num_threads(1)
    assert len(set(keys)) == 4
    assert keys[0] == labels.cache_key(digits_file, "teacher", CPU)


@pytest.mark.parametrize("spoil", ["cut", "shape", "nan", "dtype"])
def test_a_damaged_file_counts_as_absent(tmp_path: Path, spoil: str) -> None:
    good = torch.zeros(4, 3)
    spoiled: dict[str, Any] = {
        "cut": good,
        "shape": torch.zeros(4, 2),
        "nan": torch.full((4, 3), torch.nan),
        "dtype": good.double(),
    }
    labels.keep(tmp_path, "key", spoiled[spoil])
    path = tmp_path / "key.safetensors"
    if spoil == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    assert labels.read_cached(tmp_path, "key", (4, 3)) is None


def test_a_disk_that_refuses_loses_the_cache_and_nothing_else(tmp_path: Path) -> None:
    assert not labels.keep(tmp_path / "no such folder", "key", torch.zeros(2, 2))
    (tmp_path / "key.safetensors").mkdir()  # in the way of the rename
    assert not labels.keep(tmp_path, "key", torch.zeros(2, 2))
    assert [p.name for p in tmp_path.iterdir()] == ["key.safetensors"]
