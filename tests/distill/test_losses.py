"""The losses against closed forms worked out here in float64 with numpy, and against their own promises."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.losses import LOSSES, Batch, Context, Objective, Targets, ce, kd, needs_teacher
from distill.losses.registry import register
from distill.taps import Outputs
from stillhouse.spec import LOSSES as SPEC_LOSSES
from stillhouse.spec.losses import Ce, Kd

ROWS, CLASSES = 7, 5


@pytest.fixture
def logits() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Student, teacher and labels, float64."""
    stream = torch.Generator().manual_seed(0)
    student = torch.randn(ROWS, CLASSES, generator=stream, dtype=torch.float64) * 3
    teacher = torch.randn(ROWS, CLASSES, generator=stream, dtype=torch.float64) * 3
    return student, teacher, torch.tensor([0, 1, 2, 3, 4, 0, 1])


def batch(student: torch.Tensor, labels: torch.Tensor | Targets, teacher: torch.Tensor | None) -> Batch:
    given = None if teacher is None else Outputs(teacher)
    return Batch(Outputs(student), given, Targets.of(labels), torch.arange(len(student)))


def compute(
    params: Any, student: torch.Tensor, labels: torch.Tensor | Targets, teacher: torch.Tensor | None
) -> torch.Tensor:
    """The loss these params describe, of logits alone."""
    found: torch.Tensor = LOSSES[params.kind].build(params, Context())(batch(student, labels, teacher))
    return found


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def kd_closed_form(student: np.ndarray, teacher: np.ndarray, temperature: float) -> float:
    p, q = softmax(teacher / temperature), softmax(student / temperature)
    return temperature**2 * float((p * (np.log(p) - np.log(q))).sum()) / len(p)


def test_the_spec_and_the_engine_know_the_same_losses() -> None:
    assert set(LOSSES.names()) == set(SPEC_LOSSES)


def test_a_kind_of_loss_can_be_registered_only_once() -> None:
    with pytest.raises(ValueError, match="'kd' is registered twice"):
        register("kd", reads_teacher=False)(lambda params, student, labels, teacher: student.sum())
    assert needs_teacher((Kd(kind="kd"),))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 20.0])
def test_kd_is_the_published_formula(logits: Any, temperature: float) -> None:
    student, teacher, _ = logits
    expected = kd_closed_form(student.numpy(), teacher.numpy(), temperature)
    assert kd(student, teacher, temperature=temperature).item() == pytest.approx(expected, rel=1e-12)


def test_kd_of_two_classes_is_the_number_on_paper() -> None:
    # T = 2, teacher logits (2 ln 3, 0): p = (3/4, 1/4). Student (0, 0): q = (1/2, 1/2).
    # KL = 3/4 ln(3/2) + 1/4 ln(1/2) = 0.130812, times T² = 0.523248.
    teacher = torch.tensor([[2 * np.log(3), 0.0]], dtype=torch.float64)
    student = torch.zeros(1, 2, dtype=torch.float64)
    expected = 4 * (0.75 * np.log(1.5) + 0.25 * np.log(0.5))
    assert kd(student, teacher, temperature=2.0).item() == pytest.approx(expected, rel=1e-12)
    assert expected == pytest.approx(0.523248, abs=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.6])
def test_ce_with_smoothing_is_the_closed_form(logits: Any, smoothing: float) -> None:
    student, _, labels = logits
    log_q = np.log(softmax(student.numpy()))
    target = np.full((ROWS, CLASSES), smoothing / CLASSES)
    target[np.arange(ROWS), labels.numpy()] += 1 - smoothing
    expected = -float((target * log_q).sum()) / ROWS
    assert ce(student, labels, label_smoothing=smoothing).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_gradients_of_kd_agree_with_finite_differences(logits: Any, temperature: float) -> None:
    student, teacher, _ = logits
    student.requires_grad_()
    assert torch.autograd.gradcheck(lambda z: kd(z, teacher, temperature=temperature), (student,))


def test_gradients_of_ce_agree_with_finite_differences(logits: Any) -> None:
    student, _, labels = logits
    student.requires_grad_()
    assert torch.autograd.gradcheck(lambda z: ce(z, labels, label_smoothing=0.1), (student,))


def test_the_gradient_of_kd_is_t_times_the_difference_of_the_distributions(logits: Any) -> None:
    student, teacher, _ = logits
    student.requires_grad_()
    kd(student, teacher, temperature=4.0).backward()
    expected = 4.0 * (softmax(student.detach().numpy() / 4) - softmax(teacher.numpy() / 4)) / ROWS
    np.testing.assert_allclose(student.grad.numpy(), expected, rtol=1e-10, atol=1e-14)


def test_at_high_temperature_kd_becomes_regression_of_centred_logits(logits: Any) -> None:
    student, teacher, _ = (t - t.double().mean(1, keepdim=True) if t.dim() > 1 else t for t in logits)
    student = student.clone().requires_grad_()
    kd(student, teacher, temperature=1e6).backward()
    limit = (student.detach() - teacher) / (CLASSES * ROWS)
    torch.testing.assert_close(student.grad, limit, rtol=1e-4, atol=1e-8)


def test_the_pull_of_kd_does_not_vanish_as_the_temperature_grows(logits: Any) -> None:
    student, teacher, _ = logits
    norms = []
    for temperature in (4.0, 40.0, 400.0):
        z = student.clone().requires_grad_()
        kd(z, teacher, temperature=temperature).backward()
        norms.append(float(z.grad.norm()))
    # Without T² each of these would be a hundred times smaller than the one before.
    assert norms[2] == pytest.approx(norms[1], rel=0.05)
    assert norms[1] > 0.3 * norms[0]


@pytest.mark.parametrize("loss", ["kd", "ce"])
def test_a_loss_is_a_mean_over_rows_whatever_the_batch(logits: Any, loss: str) -> None:
    student, teacher, labels = logits
    whole = compute(_params(loss), student, labels, teacher)
    thrice = compute(_params(loss), student.repeat(3, 1), labels.repeat(3), teacher.repeat(3, 1))
    rows = [compute(_params(loss), student[i : i + 1], labels[i : i + 1], teacher[i : i + 1]) for i in range(ROWS)]
    assert thrice.item() == pytest.approx(whole.item(), rel=1e-12)
    assert torch.stack(rows).mean().item() == pytest.approx(whole.item(), rel=1e-12)


@pytest.mark.parametrize("loss", ["kd", "ce"])
def test_half_precision_logits_are_widened_before_anything_is_computed(logits: Any, loss: str) -> None:
    student, teacher, labels = (t.bfloat16() if t.is_floating_point() else t for t in logits)
    value = compute(_params(loss), student, labels, teacher)
    wide = compute(_params(loss), student.float(), labels, teacher.float())
    assert value.dtype == torch.float32
    assert torch.equal(value, wide)


@pytest.mark.parametrize("loss", ["kd", "ce"])
def test_double_precision_stays_double(logits: Any, loss: str) -> None:
    student, teacher, labels = logits
    assert compute(_params(loss), student, labels, teacher).dtype == torch.float64


def test_no_gradient_reaches_the_teacher(logits: Any) -> None:
    student, teacher, _ = logits
    student.requires_grad_()
    teacher.requires_grad_()
    kd(student, teacher, temperature=4.0).backward()
    assert teacher.grad is None
    assert student.grad.abs().sum() > 0


finite = st.floats(-50, 50, width=32)


@settings(max_examples=150, deadline=None)
@given(
    rows=st.lists(st.lists(finite, min_size=4, max_size=4), min_size=2, max_size=2),
    nudge=st.sampled_from([0.0, 1e-7, 1e-4, 1e-2, 1.0]),
    temperature=st.sampled_from([1.0, 4.0, 20.0]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_kd_is_never_negative(rows: Any, nudge: float, temperature: float, dtype: torch.dtype) -> None:
    teacher = torch.tensor(rows, dtype=dtype)
    student = teacher + nudge * torch.tensor([1.0, -1.0, 0.5, 0.0])
    value = kd(student, teacher, temperature=temperature)
    assert value.item() >= 0
    assert torch.isfinite(value)


def test_kd_is_zero_exactly_when_the_distributions_are_equal(logits: Any) -> None:
    student, teacher, _ = logits
    assert kd(student, student.clone(), temperature=4.0).item() == 0
    shifted = student + 3.5  # softmax does not see a constant
    assert kd(student, shifted, temperature=4.0).item() == pytest.approx(0, abs=1e-12)
    assert kd(student, teacher, temperature=4.0).item() > 0.1
    assert kd(student, student * 1.01, temperature=4.0).item() > 0


def test_where_rounding_would_make_kd_negative_the_gradient_is_kept() -> None:
    stream = torch.Generator().manual_seed(1)
    for _ in range(200):
        teacher = torch.randn(2, 10, generator=stream) * 4
        student = (teacher + 1e-6 * torch.randn(2, 10, generator=stream)).requires_grad_()
        value = kd(student, teacher, temperature=1.0)
        value.backward()
        assert value.item() >= 0
        assert student.grad.abs().sum() > 0


def test_extreme_logits_give_finite_losses_and_gradients() -> None:
    student = torch.tensor([[1e4, -1e4, 0.0]], requires_grad=True)
    teacher = torch.tensor([[-1e4, 1e4, 0.0]])
    total = kd(student, teacher, temperature=1.0) + ce(student, torch.tensor([1]))
    total.backward()
    assert torch.isfinite(total)
    assert torch.isfinite(student.grad).all()


def test_the_sum_is_weighted_and_its_parts_are_not(logits: Any) -> None:
    student, teacher, labels = logits
    student.requires_grad_()
    losses = (Kd(kind="kd", temperature=4.0, weight=0.9), Ce(kind="ce", weight=0.1))
    total, parts = Objective(losses)(batch(student, labels, teacher))
    assert parts["kd"].item() == pytest.approx(kd(student, teacher, temperature=4.0).item())
    assert parts["ce"].item() == pytest.approx(ce(student, labels).item())
    assert total.item() == pytest.approx(0.9 * parts["kd"].item() + 0.1 * parts["ce"].item(), rel=1e-12)
    assert total.requires_grad
    assert not any(part.requires_grad for part in parts.values())


def test_only_losses_that_read_the_teacher_ask_for_one(logits: Any) -> None:
    student, _, labels = logits
    hard = (Ce(kind="ce", weight=1.0),)
    soft = (Kd(kind="kd", temperature=4.0, weight=1.0),)
    assert not needs_teacher(hard)
    assert needs_teacher(soft)
    given = batch(student, labels, None)
    assert Objective(hard)(given)[0].item() == pytest.approx(ce(student, labels).item())
    with pytest.raises(ValueError, match="teacher's logits"):
        Objective(soft)(given)


def _params(kind: str) -> Kd | Ce:
    return (
        Kd(kind="kd", temperature=4.0, weight=1.0) if kind == "kd" else Ce(kind="ce", weight=1.0, label_smoothing=0.1)
    )
