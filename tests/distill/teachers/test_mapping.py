"""Logits of the teacher's classes become logits of the dataset's: against closed forms in float64."""

import math

import pytest
import torch
from torch import Tensor, nn

from distill.teachers import map_logits, mapped
from stillhouse.spec.teachers import LabelMap


def test_golden_values() -> None:
    # Probabilities ½, ¼, ⅛, ⅛; classes 0 and 3 join, 1 stays, 2 is left out.
    logits = torch.tensor([[math.log(4), math.log(2), 0.0, 0.0]])
    out = map_logits(logits, torch.tensor([0, 1, -1, 0]), 2)
    assert out[0].tolist() == pytest.approx([math.log(5), math.log(2)], abs=1e-6)
    assert out.softmax(1)[0].tolist() == pytest.approx([5 / 7, 2 / 7], abs=1e-6)


def test_the_softmax_is_the_teachers_own_summed_and_renormalised() -> None:
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(64, 50, generator=draw) * 5
    to = torch.randint(-1, 7, (50,), generator=draw)
    to[:7] = torch.arange(7)
    probabilities = logits.double().softmax(1)
    wanted = torch.stack([probabilities[:, to == c].sum(1) for c in range(7)], dim=1)
    wanted /= wanted.sum(1, keepdim=True)
    assert torch.allclose(map_logits(logits, to, 7).softmax(1).double(), wanted, atol=1e-6)


def test_a_permutation_changes_no_bit() -> None:
    logits = torch.randn(5, 4)
    assert torch.equal(map_logits(logits, torch.tensor([2, 0, 3, 1]), 4), logits[:, [1, 3, 0, 2]])


def test_extreme_logits_neither_overflow_nor_vanish() -> None:
    logits = torch.tensor([[1e30, -1e30, 0.0, 300.0], [-1e4, -1e4, 1e4, 1e4]])
    out = map_logits(logits, torch.tensor([0, 1, 1, 2]), 3)
    assert out.isfinite().all()
    assert out[0].tolist() == pytest.approx([1e30, 0.0, 300.0])
    assert out[1].tolist() == pytest.approx([-1e4, 1e4, 1e4])


def test_half_precision_is_added_up_in_single() -> None:
    logits = torch.zeros(1, 4096, dtype=torch.float16)
    out = map_logits(logits, torch.zeros(4096, dtype=torch.int64), 1)
    assert out.dtype == torch.float32
    assert out.item() == pytest.approx(math.log(4096), abs=1e-6)


class Fixed(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, :3]


def test_a_teacher_whose_classes_are_the_datasets_is_left_as_it_is() -> None:
    teacher = Fixed()
    assert mapped(teacher, LabelMap(to=(0, 1, 2), by="same"), 3) is teacher
    turned = mapped(teacher, LabelMap(to=(2, 1, 0), by="name"), 3)
    assert torch.equal(turned(torch.tensor([[1.0, 2, 3]])), torch.tensor([[3.0, 2, 1]]))
    assert not turned.state_dict(), "the map is no weight"
    wider = mapped(teacher, LabelMap(to=(0, 1, -1), by="stated"), 2)
    assert wider(torch.zeros(4, 3)).shape == (4, 2)
