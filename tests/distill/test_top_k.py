"""Losses on the largest outputs and the sum of the rest: exact between buckets, and the whole loss at k → C."""

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor

from distill.losses import LOSSES, Batch, Context, Targets
from distill.losses.softened import bucketed, top_of
from distill.taps import Outputs
from stillhouse.spec.losses import LOSSES as SPECS
from stillhouse.spec.losses import Loss, Softened

OF_BUCKETS = [kind for kind, spec in SPECS.items() if spec.of_buckets]
ROWS, CLASSES, T = 6, 8, 3.0


def logits(seed: int, *, rows: int = ROWS) -> Tensor:
    return 3 * torch.randn(rows, CLASSES, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def loss(kind: str) -> Any:
    adapter: TypeAdapter[Any] = TypeAdapter(Loss)
    return adapter.validate_python({"kind": kind, "temperature": T, "weight": 1.0})


def value(kind: str, student: Tensor, teacher: Outputs) -> Tensor:
    term = LOSSES[kind].build(loss(kind), Context())
    labels = torch.zeros(len(student), dtype=torch.int64)
    found: Tensor = term(Batch(Outputs(student), teacher, Targets(labels), torch.arange(len(student))))
    return found


def few(teacher: Tensor, k: int) -> Outputs:
    values, ids = top_of(teacher, k, temperature=T)
    return Outputs(values, ids=ids)


def closed_form(kind: str, student: Tensor, teacher: Tensor, k: int) -> float:
    """From probabilities, in numpy: softmax, sums over buckets, the divergence."""

    def buckets(z: np.ndarray, top: np.ndarray) -> np.ndarray:
        p = np.exp(z / T) / np.exp(z / T).sum()
        return np.array([*p[top], p.sum() - p[top].sum()])

    def kl(p: np.ndarray, q: np.ndarray) -> float:
        return float((p * np.log(p / q)).sum())

    rows = []
    for s, t in zip(student.numpy(), teacher.numpy(), strict=True):
        top = np.argsort(-t)[:k]
        p, q = buckets(t, top), buckets(s, top)
        m = (p + q) / 2
        rows.append({"kd": kl(p, q), "reverse-kl": kl(q, p), "jsd": (kl(p, m) + kl(q, m)) / 2}[kind])
    return T**2 * math.fsum(rows) / len(rows)


def test_these_are_the_losses_that_compare_distributions() -> None:
    assert OF_BUCKETS == ["kd", "reverse-kl", "jsd"]
    assert all(issubclass(SPECS[kind], Softened) for kind in OF_BUCKETS)


@pytest.mark.parametrize("kind", OF_BUCKETS)
@pytest.mark.parametrize("k", [1, 3, 7])
def test_the_loss_is_the_divergence_between_buckets(kind: str, k: int) -> None:
    student, teacher = logits(0), logits(1)
    found = float(value(kind, student, few(teacher, k)))
    assert math.isclose(found, closed_form(kind, student, teacher, k), rel_tol=1e-9)


@pytest.mark.parametrize("kind", OF_BUCKETS)
def test_more_buckets_see_more_and_all_but_one_see_all(kind: str) -> None:
    student, teacher = logits(2), logits(3)
    whole = float(value(kind, student, Outputs(teacher)))
    found = [float(value(kind, student, few(teacher, k))) for k in range(1, CLASSES)]
    # Joining buckets never adds to a divergence.
    assert all(a <= b + 1e-12 for a, b in pairwise(found))
    assert math.isclose(found[-1], whole, rel_tol=1e-9)
    assert found[0] < whole
    single = float(value(kind, student.float(), few(teacher.float(), CLASSES - 1)))
    assert math.isclose(single, whole, rel_tol=1e-4)


@pytest.mark.parametrize("kind", OF_BUCKETS)
def test_the_gradient_is_that_of_the_value_and_none_reaches_the_teacher(kind: str) -> None:
    student, teacher = logits(4).requires_grad_(True), few(logits(5), 3)
    assert torch.autograd.gradcheck(lambda z: value(kind, z, teacher), (student,))
    value(kind, student, teacher).backward()  # type: ignore[no-untyped-call]
    assert not teacher.logits.requires_grad
    assert student.grad is not None
    assert bool(student.grad.isfinite().all())
    # Every class has its share, the ones in the tail too.
    assert bool((student.grad != 0).all())


@pytest.mark.parametrize("kind", OF_BUCKETS)
def test_a_larger_batch_of_the_same_rows_gives_the_same_mean(kind: str) -> None:
    student, teacher = logits(6), logits(7)
    once = value(kind, student, few(teacher, 3))
    thrice = value(kind, student.repeat(3, 1), few(teacher.repeat(3, 1), 3))
    torch.testing.assert_close(thrice, once)


@pytest.mark.parametrize("kind", OF_BUCKETS)
def test_half_precision_comes_in_and_single_is_computed(kind: str) -> None:
    student, teacher = logits(8).bfloat16(), few(logits(9).float(), 3)
    found = value(kind, student, teacher)
    assert found.dtype == torch.float32
    assert math.isclose(float(found), float(value(kind, student.double(), teacher)), rel_tol=1e-4)


@pytest.mark.parametrize("kind", OF_BUCKETS)
def test_the_same_distribution_costs_nothing_and_wants_nothing(kind: str) -> None:
    student = logits(10).requires_grad_(True)
    found = value(kind, student, few(student.detach(), 3))
    found.backward()  # type: ignore[no-untyped-call]
    assert abs(float(found.detach())) < 1e-12
    assert student.grad is not None
    assert float(student.grad.abs().max()) < 1e-12


def test_the_tail_is_the_sum_of_the_others_and_nothing_is_renormalised() -> None:
    z = logits(11)
    values, ids = top_of(z, 3, temperature=T)
    p = (z / T).softmax(1)
    torch.testing.assert_close((values / T).softmax(1)[:, :3], p.gather(1, ids))
    torch.testing.assert_close((values / T).softmax(1)[:, 3], 1 - p.gather(1, ids).sum(1))
    # At another temperature the tail is not that of the others: it is kept for one.
    assert not torch.allclose(values.softmax(1)[:, 3], 1 - z.softmax(1).gather(1, ids).sum(1))


def test_far_apart_logits_neither_overflow_nor_become_nan() -> None:
    student = torch.tensor([[1e4, -1e4, 0.0, 5e3]], requires_grad=True)
    teacher = few(torch.tensor([[-1e4, 1e4, 3e3, 0.0]]), 2)
    for kind in OF_BUCKETS:
        found = value(kind, student, teacher)
        assert bool(found.isfinite())
        [gradient] = torch.autograd.grad(found, student)
        assert bool(gradient.isfinite().all())
    assert bool(bucketed(student, torch.tensor([[0]]), temperature=T).isfinite().all())
