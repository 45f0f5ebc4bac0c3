"""A network is tried on random rows before it is kept: whatever makes it useless as a teacher is said then."""

import pytest
import torch
from torch import Tensor

from distill.teachers import trial
from stillhouse.spec.errors import InvalidData
from stillhouse.spec.teachers import ForeignConfig, OnnxNet, Preprocessing

ROWS = torch.arange(12.0).view(3, 4)


def code(network: trial.Network) -> str:
    with pytest.raises(InvalidData) as caught:
        trial.outcome(network, ROWS)
    return caught.value.errors[0].code


def raises(_: Tensor) -> Tensor:
    raise RuntimeError("mat1 and mat2 shapes cannot be multiplied\nand more")


@pytest.mark.parametrize(
    ("network", "wanted"),
    [
        (lambda x: x + torch.rand(4), "random_outputs"),
        (lambda x: x / 0, "outputs_not_finite"),
        (lambda x: (x, x), "wrong_outputs"),
        (lambda x: x[:2], "wrong_outputs"),
        (lambda x: x[:, :1], "wrong_outputs"),
        (lambda x: x.view(3, 2, 2), "wrong_outputs"),
        (lambda x: x.sum(), "wrong_outputs"),
        (raises, "failed_on_rows"),
    ],
)
def test_what_cannot_teach_is_refused(network: trial.Network, wanted: str) -> None:
    assert code(network) == wanted


def test_what_can_is_given_back() -> None:
    assert torch.equal(trial.outcome(lambda x: x * 2, ROWS), ROWS * 2)


def test_the_reason_of_a_failure_is_its_first_line() -> None:
    with pytest.raises(InvalidData, match="cannot be multiplied") as caught:
        trial.outcome(raises, ROWS)
    assert "and more" not in str(caught.value)


def test_memory_that_runs_out_is_no_fault_of_the_network() -> None:
    def greedy(_: Tensor) -> Tensor:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")

    with pytest.raises(MemoryError):
        trial.outcome(greedy, ROWS)


def test_rows_that_change_each_other_are_seen() -> None:
    assert trial.rows_alone(lambda x: x * 2, ROWS, ROWS * 2)
    assert not trial.rows_alone(lambda x: x - x.mean(0), ROWS, ROWS - ROWS.mean(0))


def test_classes_by_rows_are_seen_by_one_row_though_there_are_as_many_rows_as_classes() -> None:
    def turned(x: Tensor) -> Tensor:
        return (x @ torch.ones(4, 3)).T

    given = trial.outcome(turned, ROWS)
    with pytest.raises(InvalidData, match="For one row it gives 3×1, where 1×3 is needed"):
        trial.rows_alone(turned, ROWS, given)


def test_logits_are_not_taken_for_probabilities() -> None:
    assert trial.are_probabilities(ROWS.softmax(1))
    assert not trial.are_probabilities(ROWS)
    assert not trial.are_probabilities(torch.tensor([[1.5, -0.5]]))
    assert not trial.are_probabilities(ROWS.log_softmax(1))


def config(shape: tuple[int | None, ...], **preparing: object) -> ForeignConfig:
    return ForeignConfig(
        network=OnnxNet(input="x", output="y", dtype="float32"),
        task="tabular-classification" if len(shape) == 1 else "image-classification",
        shape=shape,
        outputs=2,
        preprocessing=Preprocessing.model_validate(preparing),
        parameters=1,
    )


@pytest.mark.parametrize(
    ("given", "shape"),
    [
        (config((3, None, None)), (3, 3, 64, 64)),
        (config((1, 20, None)), (3, 1, 20, 64)),
        (config((3, 20, 20), size=[20, 20]), (3, 3, 20, 20)),
        (config((7,)), (3, 7)),
    ],
)
def test_random_rows_have_the_shape_a_dataset_would_have(given: ForeignConfig, shape: tuple[int, ...]) -> None:
    rows = trial.sample(given)
    assert rows.shape == shape
    assert torch.equal(rows, trial.sample(given)), "the same upload is judged the same way twice"


def test_random_rows_of_a_table_lie_about_its_mean() -> None:
    rows = trial.sample(config((2,), mean=[1000, -1000], std=[1, 1]))
    assert torch.allclose(rows.mean(0), torch.tensor([1000.0, -1000.0]), atol=5)


@pytest.mark.parametrize("shape", [(2**62,), (3, 100_000, 100_000)])
def test_rows_of_a_size_that_no_dataset_has_are_refused_and_not_made(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidData, match="no dataset here more than 50,000,000") as caught:
        trial.sample(config(shape))
    assert caught.value.errors[0].code == "wrong_inputs"
