"""Rare classes: sampled as often as common ones, or weighed more, and measured so that they count."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from distill import RunIO, run
from distill.data import Dataset, read_dataset
from distill.evaluate import score
from distill.losses import Targets, ce
from distill.sampling import balanced_weights, epoch_order
from distill.seeds import permutation
from distill.summary import measured
from distill.train import fit
from stillhouse.spec.losses import Ce, Dkd
from tests.distill.conftest import resolved, store
from tests.distill.test_losses import compute
from tests.distill.test_train import STAGE, Log, network

_COMMON, _RARE = 760, 40


@pytest.fixture(scope="module")
def skewed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two overlapping clouds, one with 5 % of the rows; the test split is as skewed."""
    stream = np.random.default_rng(0)
    y = np.repeat([0, 1], [_COMMON, _RARE]).repeat(2)
    x = stream.normal(size=(len(y), 2)) + 1.2 * y[:, None]
    split = np.tile([0, 2], _COMMON + _RARE)
    path = tmp_path_factory.mktemp("skewed") / "t"
    return store(path, x.astype(np.float32), y, split, ("common", "rare"))


def _recall(data: Dataset, **stage: str) -> list[float]:
    """Share of the common and of the rare test rows that a network trained so gets right."""
    net = network(data)
    fit(net, [replace(STAGE, epochs=20, **stage)], data, None, Log().reporter)  # type: ignore[arg-type]
    given = score(net, data, "test").classes
    labels = data.y[data.rows["test"]]
    return [float((given[labels == c] == c).double().mean()) for c in (0, 1)]


def test_both_remedies_find_rare_rows_that_plain_training_gives_up(skewed: Path) -> None:
    data = read_dataset(skewed)
    plain = _recall(data)
    assert plain[1] < 0.5
    for remedy in ({"class_weights": "balanced"}, {"sampling": "balanced"}):
        evened = _recall(data, **remedy)
        assert evened[1] > plain[1] + 0.25
        assert sum(evened) > sum(plain) + 0.15


@given(
    counts=st.lists(st.integers(0, 30), min_size=1, max_size=6),
    unlabelled=st.integers(0, 9),
    epoch=st.integers(0, 3),
)
def test_balanced_sampling_shows_each_class_and_each_of_its_rows_equally_often(
    counts: list[int], unlabelled: int, epoch: int
) -> None:
    labels = torch.tensor([c for c, n in enumerate(counts) for _ in range(n)] + [-1] * unlabelled, dtype=torch.int64)
    labels = labels[permutation(len(labels), 7)]
    order = epoch_order(labels, "balanced", 0, "student", epoch)
    assert len(order) == len(labels)
    shown = torch.bincount(order, minlength=len(labels)) if len(order) else order
    assert (shown[labels < 0] == 1).all()
    per_class = []
    for c, n in enumerate(counts):
        if n:
            mine = shown[labels == c]
            per_class.append(int(mine.sum()))
            assert int(mine.max()) - int(mine.min()) <= 1
    assert not per_class or max(per_class) - min(per_class) <= 1


def test_an_order_is_a_function_of_seed_stream_and_epoch() -> None:
    labels = torch.tensor([0] * 50 + [1] * 5)
    first = epoch_order(labels, "balanced", 1, "student", 2)
    torch.rand(3)
    assert torch.equal(first, epoch_order(labels, "balanced", 1, "student", 2))
    for other in ((2, "student", 2), (1, "teacher", 2), (1, "student", 3)):
        assert not torch.equal(first, epoch_order(labels, "balanced", *other))


def test_balanced_orders_are_pinned_so_that_a_resumed_job_continues_them() -> None:
    order = epoch_order(torch.tensor([0, 0, 0, 0, 1, -1]), "balanced", 0, "student", 0)
    assert order.tolist() == [2, 5, 4, 4, 4, 3]


def test_uniform_sampling_is_the_order_it_always_was() -> None:
    labels = torch.tensor([0] * 50 + [1] * 5)
    assert torch.equal(epoch_order(labels, "uniform", 3, "student", 4), permutation(55, 3, "student", "order", 4))


def test_class_weights_are_the_closed_form_and_average_to_one() -> None:
    labels = torch.tensor([0] * 6 + [2] * 2 + [-1] * 5)
    weights = balanced_weights(labels, 3)
    assert weights.tolist() == pytest.approx([8 / (2 * 6), 0.0, 8 / (2 * 2)])
    assert weights[labels[labels >= 0]].mean().item() == pytest.approx(1)


def test_weighted_ce_is_the_closed_form_and_does_not_depend_on_the_neighbours() -> None:
    student = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels, weights = torch.tensor([0, 1, 2, 2, 0]), torch.tensor([0.5, 2.0, 3.0])
    params = Ce(kind="ce", weight=1.0, label_smoothing=0.2)

    def weighted_ce(rows: slice) -> float:
        return float(compute(params, student[rows], Targets(labels[rows], weights), None))

    log_q = student.log_softmax(1).numpy()
    target = np.full((5, 3), 0.2 / 3)
    target[np.arange(5), labels] += 0.8
    expected = (-(target * log_q).sum(1) * weights.numpy()[labels]).mean()
    assert weighted_ce(slice(0, 5)) == pytest.approx(expected, rel=1e-12)
    assert np.mean([weighted_ce(slice(i, i + 1)) for i in range(5)]) == pytest.approx(expected, rel=1e-12)


def test_class_weights_leave_other_losses_alone() -> None:
    student, teacher = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels, dkd = torch.tensor([0, 1, 2, 0]), Dkd(kind="dkd", temperature=3.0, weight=1.0)
    weighed = Targets(labels, torch.tensor([9.0, 2.0, 3.0]))
    assert torch.equal(compute(dkd, student, weighed, teacher), compute(dkd, student, labels, teacher))
    assert not torch.equal(compute(Ce(kind="ce"), student, weighed, None), ce(student, labels))


def test_balanced_accuracy_counts_every_class_alike(skewed: Path) -> None:
    data = read_dataset(skewed)
    always_common = replace(score(network(data), data, "test"), classes=torch.zeros(800, dtype=torch.int64))
    row = measured("student", "", always_common, data, teacher=always_common, parameters=1, size_bytes=1, latency=[])
    assert row.balanced_accuracy == 0.5


def test_a_job_reports_balanced_accuracy_and_its_remedies_reach_student_and_baseline(
    skewed: Path, tmp_path: Path
) -> None:
    def job(name: str, **training: str) -> tuple[list[float], list[float]]:
        (tmp_path / name).mkdir()
        spec = resolved(skewed, training={"epochs": 15, **training}, evaluation={"baseline": True})
        report = run(spec, RunIO(skewed, None, tmp_path / name, threads=1), lambda event: None).report
        return [row.balanced_accuracy or 0.0 for row in report.models], [row.loss for row in report.models]

    plain, sampled, weighed = job("a"), job("b", sampling="balanced"), job("c", class_weights="balanced")
    for balanced, losses in (sampled, weighed):
        assert losses[0] == plain[1][0], "the teacher's training has settings of its own"
        assert losses[1] != plain[1][1]
        assert balanced[2] > plain[0][2] + 0.1
