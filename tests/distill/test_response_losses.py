"""Every loss on outputs against a closed form worked out here in float64, and against what all of them promise."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax

from distill import losses as maths
from distill.losses import LOSSES
from stillhouse.spec.losses import LOSSES as SPEC_LOSSES
from tests.distill.test_losses import compute as of_logits

ROWS, CLASSES, T = 6, 5, 3.0
RESPONSE = ["kd", "reverse-kl", "jsd", "logit-mse", "logit-cosine", "dkd", "dist"]
SOFTENED = ["kd", "reverse-kl", "jsd", "dkd", "dist"]


def draw(rows: int = ROWS, classes: int = CLASSES, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    stream = np.random.default_rng(seed)
    return stream.normal(0, 3, (rows, classes)), stream.normal(0, 3, (rows, classes)), stream.integers(0, classes, rows)


def kl(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    return (p * (np.log(p) - np.log(q))).sum(1)


def standard(z: np.ndarray) -> np.ndarray:
    return (z - z.mean(1, keepdims=True)) / z.std(1, keepdims=True)


def dkd_by_definition(student: np.ndarray, teacher: np.ndarray, labels: np.ndarray) -> float:
    total = 0.0
    for s, t, y in zip(student, teacher, labels, strict=True):
        q, p = softmax(s / T), softmax(t / T)
        rest = np.arange(CLASSES) != y
        b_q, b_p = np.array([q[y], q[rest].sum()]), np.array([p[y], p[rest].sum()])
        n_q, n_p = q[rest] / q[rest].sum(), p[rest] / p[rest].sum()
        target = (b_p * np.log(b_p / b_q)).sum()
        others = (n_p * np.log(n_p / n_q)).sum()
        total += 1.5 * target + 8 * others
    return T * T * total / len(labels)


def dist_by_definition(student: np.ndarray, teacher: np.ndarray, labels: np.ndarray) -> float:
    q, p = softmax(student / T, axis=1), softmax(teacher / T, axis=1)
    rows = np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(q, p, strict=True)])
    columns = np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(q.T, p.T, strict=True)])
    return T * T * (2 * rows + 0.5 * columns)


def jsd_by_definition(student: np.ndarray, teacher: np.ndarray, labels: np.ndarray) -> float:
    q, p = softmax(student / T, axis=1), softmax(teacher / T, axis=1)
    m = 0.3 * p + 0.7 * q
    return T * T * float((0.3 * kl(p, m) + 0.7 * kl(q, m)).mean())


DEFINITIONS: dict[str, tuple[dict[str, float], Callable[..., float]]] = {
    "kd": ({}, lambda s, t, y: T * T * kl(softmax(t / T, axis=1), softmax(s / T, axis=1)).mean()),
    "reverse-kl": ({}, lambda s, t, y: T * T * kl(softmax(s / T, axis=1), softmax(t / T, axis=1)).mean()),
    "jsd": ({"beta": 0.3}, jsd_by_definition),
    "logit-mse": ({}, lambda s, t, y: float(((s - t) ** 2).mean())),
    "logit-cosine": (
        {},
        lambda s, t, y: float(np.mean(1 - (s * t).sum(1) / np.linalg.norm(s, axis=1) / np.linalg.norm(t, axis=1))),
    ),
    "dkd": ({"alpha": 1.5, "beta": 8.0}, dkd_by_definition),
    "dist": ({"beta": 2.0, "gamma": 0.5}, dist_by_definition),
}


def compute(kind: str, student: Any, teacher: Any, labels: Any, **dials: Any) -> torch.Tensor:
    if kind in SOFTENED:
        dials = {"temperature": T} | dials
    params = SPEC_LOSSES[kind].model_validate({"kind": kind, "weight": 1.0, **dials})
    tensors = [torch.as_tensor(value) for value in (student, labels, teacher)]
    return of_logits(params, *tensors)


def test_every_response_loss_has_a_definition_here() -> None:
    assert set(DEFINITIONS) == set(RESPONSE)
    assert set(RESPONSE) | {"ce"} <= set(LOSSES.names())


@pytest.mark.parametrize("kind", RESPONSE)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_loss_is_its_definition(kind: str, seed: int) -> None:
    student, teacher, labels = draw(seed=seed)
    dials, definition = DEFINITIONS[kind]
    value = compute(kind, student, teacher, labels, **dials).item()
    assert value == pytest.approx(definition(student, teacher, labels), rel=1e-10)


@pytest.mark.parametrize("kind", SOFTENED)
def test_a_standardised_loss_is_the_loss_of_standardised_logits(kind: str) -> None:
    student, teacher, labels = draw()
    dials, definition = DEFINITIONS[kind]
    value = compute(kind, student, teacher, labels, standardize=True, **dials).item()
    assert value == pytest.approx(definition(standard(student), standard(teacher), labels), rel=1e-5)
    stretched = compute(kind, 7 * student + 2, teacher, labels, standardize=True, **dials).item()
    assert stretched == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize("kind", RESPONSE)
def test_gradients_agree_with_finite_differences(kind: str) -> None:
    student, teacher, labels = draw()
    z = torch.tensor(student, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s: compute(kind, s, teacher, labels, **DEFINITIONS[kind][0]), (z,))


@pytest.mark.parametrize("kind", RESPONSE)
def test_no_gradient_reaches_the_teacher(kind: str) -> None:
    student, teacher, labels = draw()
    s, t = torch.tensor(student, requires_grad=True), torch.tensor(teacher, requires_grad=True)
    compute(kind, s, t, labels).backward()
    assert t.grad is None
    assert s.grad is not None
    assert s.grad.abs().sum() > 0


@pytest.mark.parametrize("kind", RESPONSE)
def test_an_equal_student_loses_nothing(kind: str) -> None:
    student, teacher, labels = draw()
    assert compute(kind, teacher, teacher, labels).item() == pytest.approx(0, abs=1e-12)
    assert compute(kind, student, teacher, labels).item() > 0.01


@pytest.mark.parametrize("kind", [kind for kind in RESPONSE if kind != "dist"])
def test_a_loss_is_a_mean_over_rows_whatever_the_batch(kind: str) -> None:
    student, teacher, labels = draw()
    whole = compute(kind, student, teacher, labels).item()
    rows = [compute(kind, *(part[i : i + 1] for part in (student, teacher, labels))).item() for i in range(ROWS)]
    assert np.mean(rows) == pytest.approx(whole, rel=1e-12)


@pytest.mark.parametrize("kind", RESPONSE)
def test_repeating_the_batch_changes_nothing(kind: str) -> None:
    parts = draw()
    whole = compute(kind, *parts).item()
    assert compute(kind, *(np.concatenate([part] * 4) for part in parts)).item() == pytest.approx(whole, rel=1e-12)


@pytest.mark.parametrize("kind", RESPONSE)
def test_half_precision_is_widened_first(kind: str) -> None:
    student, teacher, labels = (torch.as_tensor(part) for part in draw())
    half = compute(kind, student.bfloat16(), teacher.bfloat16(), labels)
    assert half.dtype == torch.float32
    assert torch.equal(half, compute(kind, student.bfloat16().float(), teacher.bfloat16().float(), labels))


@pytest.mark.parametrize("kind", ["kd", "reverse-kl", "jsd", "dkd"])  # not dist: correlations do not shrink with T
def test_the_pull_does_not_vanish_as_the_temperature_grows(kind: str) -> None:
    student, teacher, labels = draw()
    pulls = []
    for temperature in (4.0, 40.0, 100.0):
        z = torch.tensor(student, requires_grad=True)
        compute(kind, z, teacher, labels, temperature=temperature).backward()
        assert z.grad is not None
        pulls.append(z.grad.norm().item())
    assert pulls[2] == pytest.approx(pulls[1], rel=0.2)


@pytest.mark.parametrize("kind", RESPONSE)
def test_extreme_logits_stay_finite(kind: str) -> None:
    student = torch.tensor([[1e4, -1e4, 0.0], [0.0, 0.0, 0.0]], requires_grad=True)
    value = compute(kind, student, torch.tensor([[-1e4, 1e4, 0.0], [5.0, 5.0, 5.0]]), torch.tensor([1, 2]))
    value.backward()
    assert value.isfinite()
    assert student.grad is not None
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("kind", SOFTENED)
@pytest.mark.parametrize("level", [0.0, 0.1, -1000.0])
def test_equal_logits_have_no_deviation_to_divide_by_and_still_learn(kind: str, level: float) -> None:
    _, teacher, labels = (torch.as_tensor(part) for part in draw(rows=2))
    student = torch.tensor([[level] * CLASSES, [1.0, 2.0, -1.0, 0.5, 0.0]], requires_grad=True)
    value = compute(kind, student, teacher.float(), labels, standardize=True)
    value.backward()
    assert value.isfinite()
    assert student.grad is not None
    assert 1e-3 < student.grad[0].norm() < 100
    flat = torch.tensor([[0.0] * CLASSES, [1.0, 2.0, -1.0, 0.5, 0.0]])
    torch.testing.assert_close(compute(kind, flat, teacher.float(), labels, standardize=True), value)


@pytest.mark.parametrize("kind", ["dist", "logit-cosine"])
def test_a_last_layer_that_begins_at_zero_is_pulled_no_harder_than_another(kind: str) -> None:
    _, teacher, labels = (torch.as_tensor(part) for part in draw())
    student = torch.zeros(ROWS, CLASSES, requires_grad=True)
    value = compute(kind, student, teacher.float(), labels)
    value.backward()
    assert value.item() == pytest.approx(1 if kind == "logit-cosine" else 2 * T * T)
    assert student.grad is not None
    assert 1e-3 < student.grad.norm() < 100
    nearer = compute(kind, student.detach() - 0.01 * student.grad, teacher.float(), labels)
    assert nearer < value


def test_two_equal_logits_of_a_batch_are_pulled_no_harder_in_dist_than_the_others() -> None:
    # In bf16, one row in a few hundred of a binary task.
    stream = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 64, 2, generator=stream)
    student[5] = -0.625
    student.requires_grad_()
    value = compute("dist", student, teacher, torch.zeros(64, dtype=torch.int64))
    value.backward()
    assert student.grad is not None
    assert student.grad[5].norm() < 10


def test_dkd_with_the_teachers_own_doubt_as_beta_is_kd() -> None:
    student, teacher, labels = draw(rows=1)
    doubt = 1 - float(softmax(teacher / T, axis=1)[0, labels[0]])
    decoupled = compute("dkd", student, teacher, labels, alpha=1.0, beta=doubt).item()
    assert decoupled == pytest.approx(compute("kd", student, teacher, labels).item(), rel=1e-10)


def test_dkd_of_two_classes_has_no_other_classes_to_rank() -> None:
    student, teacher, labels = draw(classes=2)
    labels = labels % 2
    with_rest = compute("dkd", student, teacher, labels, alpha=1.0, beta=1000.0).item()
    assert with_rest == pytest.approx(compute("kd", student, teacher, labels).item(), rel=1e-10)


def test_the_halves_of_jsd_are_symmetric_and_bounded() -> None:
    student, teacher, labels = draw()
    there = compute("jsd", student, teacher, labels, beta=0.5).item()
    back = compute("jsd", teacher, student, labels, beta=0.5).item()
    assert there == pytest.approx(back, rel=1e-12)
    assert there <= T * T * np.log(2)


def test_jsd_near_its_ends_pulls_like_either_kl() -> None:
    student, teacher, labels = draw()
    forward = compute("jsd", student, teacher, labels, beta=1e-6).item() / 1e-6
    assert forward == pytest.approx(compute("kd", student, teacher, labels).item(), rel=1e-3)
    backward = compute("jsd", student, teacher, labels, beta=1 - 1e-6).item() / 1e-6
    assert backward == pytest.approx(compute("reverse-kl", student, teacher, labels).item(), rel=1e-3)


def test_dist_of_one_row_keeps_the_relation_between_classes() -> None:
    student, teacher, labels = draw(rows=1)
    q, p = softmax(student[0] / T), softmax(teacher[0] / T)
    expected = T * T * (1 - np.corrcoef(q, p)[0, 1])
    assert compute("dist", student, teacher, labels).item() == pytest.approx(expected, rel=1e-10)


def test_the_divergences_agree_with_scipys_log_softmax() -> None:
    student, teacher, _ = draw(seed=9)
    q, p = log_softmax(student / T, axis=1), log_softmax(teacher / T, axis=1)
    expected = T * T * (np.exp(p) * (p - q)).sum() / ROWS
    value = maths.kd(torch.tensor(student), torch.tensor(teacher), temperature=T)
    assert value.item() == pytest.approx(expected, rel=1e-12)
