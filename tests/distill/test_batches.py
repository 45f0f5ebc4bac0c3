"""Which rows go together, and how large each step is: pure functions."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from distill.batches import bounds, fewest_rows
from distill.optimisation import optimizer, step_size
from distill.seeds import derive, generator, permutation, reseed
from distill.students import build
from stillhouse.spec.students import Cnn, Mlp
from tests.distill.test_students import images


@given(rows=st.integers(2, 500), batch_size=st.integers(1, 80), at_least=st.sampled_from([1, 2]))
def test_every_row_is_in_exactly_one_batch(rows: int, batch_size: int, at_least: int) -> None:
    steps = bounds(rows, batch_size, at_least=at_least)
    assert [i for start, stop in steps for i in range(start, stop)] == list(range(rows))
    assert all(stop - start >= at_least for start, stop in steps)
    assert all(stop - start == max(batch_size, at_least) for start, stop in steps[:-2])


def test_the_last_batch_may_be_smaller_and_is_kept() -> None:
    assert bounds(10, 4) == [(0, 4), (4, 8), (8, 10)]
    assert bounds(9, 4) == [(0, 4), (4, 8), (8, 9)]


def test_a_single_last_row_joins_the_batch_before_when_one_row_is_too_few() -> None:
    assert bounds(9, 4, at_least=2) == [(0, 4), (4, 9)]
    assert bounds(3, 1, at_least=2) == [(0, 3)]


def test_batch_norm_asks_for_two_rows() -> None:
    assert fewest_rows(build(Mlp(name="mlp"), images(), [0.0], [1.0])) == 1
    assert fewest_rows(build(Cnn(name="cnn"), images(), [0.0], [1.0])) == 2


def test_cosine_falls_from_the_peak_to_nothing_along_half_a_wave() -> None:
    rates = [step_size(s, peak=0.2, steps=100, warmup=0, schedule="cosine") for s in range(100)]
    assert rates[0] == 0.2
    assert rates[50] == pytest.approx(0.1)
    assert rates[25] == pytest.approx(0.2 * (1 + math.cos(math.pi / 4)) / 2)
    assert 0 < rates[-1] < 1e-4
    assert rates == sorted(rates, reverse=True)


def test_linear_falls_evenly_and_constant_stays() -> None:
    linear = [step_size(s, peak=1.0, steps=4, warmup=0, schedule="linear") for s in range(4)]
    assert linear == [1.0, 0.75, 0.5, 0.25]
    assert {step_size(s, peak=1.0, steps=4, warmup=0, schedule="constant") for s in range(4)} == {1.0}


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_warmup_rises_evenly_to_the_peak_and_then_the_schedule_takes_over(schedule: str) -> None:
    rates = [step_size(s, peak=1.0, steps=10, warmup=4, schedule=schedule) for s in range(10)]  # type: ignore[arg-type]
    assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert all(rate > 0 for rate in rates)


def test_warmup_as_long_as_the_training_never_divides_by_zero() -> None:
    rates = [step_size(s, peak=1.0, steps=3, warmup=3, schedule="cosine") for s in range(3)]
    assert rates == pytest.approx([1 / 3, 2 / 3, 1])


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd"])
def test_weight_decay_spares_biases_and_norms(name: str) -> None:
    net = build(Cnn(name="cnn", channels=(4,)), images(), [0.0], [1.0])
    optim = optimizer(net, name, weight_decay=0.5, momentum=0.9 if name == "sgd" else 0.0)  # type: ignore[arg-type]
    decayed = {id(p) for group in optim.param_groups if group["weight_decay"] for p in group["params"]}
    names = {name for name, p in net.named_parameters() if id(p) in decayed}
    assert names == {"network.0.weight", "network.4.weight"}
    assert sum(len(group["params"]) for group in optim.param_groups) == len(list(net.parameters()))


def test_sgd_is_nesterov_exactly_when_it_has_momentum() -> None:
    net = nn.Linear(2, 2)
    assert optimizer(net, "sgd", weight_decay=0.0, momentum=0.9).param_groups[0]["nesterov"]
    assert not optimizer(net, "sgd", weight_decay=0.0, momentum=0.0).param_groups[0]["nesterov"]


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd"])
def test_decay_alone_shrinks_a_weight_as_its_paper_says(name: str) -> None:
    net = nn.Linear(1, 1, bias=False)
    nn.init.constant_(net.weight, 2.0)
    optim = optimizer(net, name, weight_decay=0.1, momentum=0.0)  # type: ignore[arg-type]
    for group in optim.param_groups:
        group["lr"] = 0.5
    net.weight.grad = torch.zeros_like(net.weight)
    optim.step()
    # Decoupled and sgd: w - lr·λ·w. Adam turns any first gradient, here λ·w, into a step of lr.
    expected = 2.0 - 0.5 if name == "adam" else 2.0 - 0.5 * 0.1 * 2.0
    assert net.weight.item() == pytest.approx(expected, rel=1e-5)


def test_an_order_depends_on_seed_purpose_and_epoch_alone() -> None:
    assert torch.equal(permutation(50, 1, "student", "order", 3), permutation(50, 1, "student", "order", 3))
    orders = [
        permutation(50, 1, "student", "order", 3),
        permutation(50, 2, "student", "order", 3),
        permutation(50, 1, "student", "order", 4),
        permutation(50, 1, "teacher", "order", 3),
    ]
    assert all(sorted(order.tolist()) == list(range(50)) for order in orders)
    assert len({tuple(order.tolist()) for order in orders}) == 4


def test_streams_are_pinned_so_that_a_resumed_job_continues_them() -> None:
    assert derive(0, "student", "order", 0) == 5756484175615221624
    assert torch.randperm(5, generator=generator(0, "student", "order", 0)).tolist() == [2, 0, 1, 4, 3]


def test_reseeding_sets_the_stream_dropout_draws_from() -> None:
    with torch.random.fork_rng(devices=[]):
        reseed(torch.device("cpu"), 3, "student", "dropout", 7)
        first = torch.rand(4)
        torch.rand(4)
        reseed(torch.device("cpu"), 3, "student", "dropout", 7)
        assert torch.equal(torch.rand(4), first)
