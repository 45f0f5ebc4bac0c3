"""What is measured, against scikit-learn and closed forms, and what the report makes of it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss, recall_score
from torch import Tensor, nn

from distill.data import Dataset, measure, read_dataset
from distill.evaluate import Score, score, wilson
from distill.students import build
from distill.summary import describe, gap_recovered, judge, lead_by_chance, measured, warnings
from stillhouse.spec.errors import JobFailure
from stillhouse.spec.job import Targets
from stillhouse.spec.report import Latency, Measured
from stillhouse.spec.students import Cnn, Mlp, Resnet
from tests.distill.conftest import resolved


@pytest.fixture
def data(digits_file: Path) -> Dataset:
    return read_dataset(digits_file)


def network(data: Dataset, **dials: Any) -> nn.Module:
    torch.manual_seed(0)
    found = measure(data)
    return build(Mlp(name="mlp", **dials), data.facts, found.mean, found.std)


def test_a_score_agrees_with_scikit_learn(data: Dataset) -> None:
    net = network(data, dropout=0.5).train()
    found = score(net, data, "test")
    rows = data.rows["test"]
    with torch.no_grad():
        probabilities = net(data.inputs(rows)).double().softmax(1).numpy()
    labels = data.y[rows].numpy()
    assert not net.training
    assert found.accuracy == accuracy_score(labels, probabilities.argmax(1))
    assert found.loss == pytest.approx(log_loss(labels, probabilities, labels=range(10)), rel=1e-5)
    assert found.rows == 270
    assert found.classes.tolist() == probabilities.argmax(1).tolist()


class _Spoiled(nn.Module):
    """Gives one bad logit."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: Tensor) -> Tensor:
        logits = torch.zeros(len(x), 10)
        logits[-1, -1] = self.value
        return logits


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_an_output_that_is_not_finite_ends_the_job(data: Dataset, value: float) -> None:
    with pytest.raises(JobFailure) as failure:
        score(_Spoiled(value), data, "test")
    assert failure.value.code == "outputs_not_finite"


def test_the_wilson_interval_is_the_one_in_the_textbook() -> None:
    # By definition the ends are where |p - share| = z·sqrt(p(1-p)/n): the roots of a quadratic.
    z2 = 1.959963984540054**2
    for right, rows in [(8, 10), (0, 30), (30, 30), (267, 270)]:
        share = right / rows
        roots = np.roots([1 + z2 / rows, -(2 * share + z2 / rows), share**2])
        low, high = sorted(roots.real)
        assert wilson(right, rows) == pytest.approx((low, high), abs=1e-9)
    assert wilson(30, 30)[1] == 1.0
    assert wilson(0, 30)[0] == 0.0


def _measured(data: Dataset, classes: Tensor, teacher: Tensor, role: str = "student", **more: Any) -> Measured:
    labels = data.y[data.rows["test"]]

    def scored(given: Tensor) -> Score:
        return Score(0.5, int((given == labels).sum()), len(given), given)

    values = {"parameters": 10, "size_bytes": 2_000_000, "latency": [], **more}
    return measured(role, "mlp", scored(classes), data, teacher=scored(teacher), **values)


def test_per_class_accuracy_and_agreement_are_shares_of_the_test_rows(data: Dataset) -> None:
    labels = data.y[data.rows["test"]]
    given = labels.clone()
    given[:40] = (given[:40] + 1) % 10
    teacher = labels.clone()
    teacher[20:60] = (teacher[20:60] + 1) % 10
    found = _measured(data, given, teacher)
    expected = recall_score(labels, given, average=None)
    assert list(found.per_class_accuracy.values()) == pytest.approx(list(expected))
    assert found.errors == 40
    assert found.agreement == pytest.approx(230 / 270)  # both wrong alike on rows 20 to 39
    assert _measured(data, given, given, role="teacher").agreement is None


def test_a_class_without_test_rows_has_no_accuracy_and_a_warning(data: Dataset, digits_file: Path) -> None:
    rows = data.rows["test"]
    bare = replace(data, rows={**data.rows, "test": rows[data.y[rows] != 3]})
    labels = bare.y[bare.rows["test"]]
    found = _measured(bare, labels, labels)
    assert found.per_class_accuracy["3"] is None
    assert found.per_class_accuracy["4"] == 1.0
    teacher = _measured(bare, labels, labels, role="teacher", parameters=99)
    assert any("no test row" in line for line in warnings(resolved(digits_file), bare, [teacher, found]))


def _row(role: str, errors: int, *, parameters: int = 1000, rows: int = 270) -> Measured:
    return Measured(
        role=role,
        architecture="mlp",
        accuracy=1 - errors / rows,
        accuracy_interval=(0, 1),
        errors=errors,
        rows=rows,
        loss=0.1,
        agreement=0.9,
        parameters=parameters,
        size_bytes=4_000_000,
        latency=[Latency(batch=1, median_ms=0.5, p90_ms=0.6, runs=30, threads=1)],
        per_class_accuracy={"a": 1.0},
    )


def test_the_gap_recovered_is_a_share_of_the_teachers_lead() -> None:
    assert gap_recovered(_row("teacher", 10), _row("student", 15), _row("baseline", 20)) == pytest.approx(0.5)
    assert gap_recovered(_row("teacher", 10), _row("student", 25), _row("baseline", 20)) == pytest.approx(-0.5)
    assert gap_recovered(_row("teacher", 20), _row("student", 15), _row("baseline", 20)) is None
    assert gap_recovered(_row("teacher", 10), _row("student", 15), None) is None


def test_without_targets_there_is_no_verdict() -> None:
    assert judge(Targets(), _row("student", 5)) == ([], None)


def test_every_stated_target_is_judged_and_all_must_be_met() -> None:
    student = _row("student", 27)
    met = Targets(min_accuracy=0.9, min_agreement=0.9, max_size_mb=4.0, max_latency_ms=0.5)
    results, verdict = judge(met, student)
    assert verdict == "passed"
    assert {r.name: r.measured for r in results} == {
        "min_accuracy": pytest.approx(0.9),
        "min_agreement": 0.9,
        "max_size_mb": 4.0,
        "max_latency_ms": 0.5,
    }
    for missed in ({"min_accuracy": 0.91}, {"min_agreement": 0.91}, {"max_size_mb": 3.9}, {"max_latency_ms": 0.4}):
        results, verdict = judge(met.model_copy(update=missed), student)
        assert verdict == "below_target"
        assert [r.name for r in results if not r.met] == list(missed)


def test_a_latency_target_without_a_latency_fails_the_job() -> None:
    student = _row("student", 1).model_copy(update={"latency": []})
    with pytest.raises(JobFailure) as failure:
        judge(Targets(max_latency_ms=1.0), student)
    assert failure.value.code == "export_failed"


def test_the_report_warns_of_what_makes_its_table_say_less(data: Dataset, digits_file: Path) -> None:
    teacher, student = _row("teacher", 9, parameters=50_000), _row("student", 10)
    spec = resolved(digits_file)
    assert warnings(spec, data, [teacher, student, _row("baseline", 12)]) == []

    def found(*models: Measured, **change: Any) -> str:
        return " ".join(warnings(change.get("spec", spec), change.get("data", data), list(models)))

    assert "no better than the baseline" in found(teacher, student, _row("baseline", 9))
    perfect = found(_row("teacher", 0), _row("student", 0), _row("baseline", 0))
    assert "right on all 270 test rows" in perfect
    assert "Train it longer" not in perfect
    assert "not smaller" in found(_row("teacher", 9, parameters=900), student)
    assert "has 30 rows" in found(teacher, _row("student", 1, rows=30))
    leaky = replace(data, report=data.report.model_copy(update={"duplicates_across_splits": 4}))
    assert "4 validation or test rows" in found(teacher, student, data=leaky)
    assert "temperature is 20" in found(teacher, student, spec=resolved(digits_file, temperature=20.0))
    large = _row("student", 10, parameters=200_000)
    assert "temperature" not in found(
        _row("teacher", 9, parameters=10**6), large, spec=resolved(digits_file, temperature=20.0)
    )


def test_a_lead_that_chance_explains_is_not_to_be_shared_out(data: Dataset) -> None:
    labels = data.y[data.rows["test"]]

    def wrong(count: int) -> Score:
        given = labels.clone()
        given[:count] = (given[:count] + 1) % 10
        return Score(0.1, len(labels) - count, len(labels), given)

    student = wrong(6)
    (said,) = lead_by_chance([wrong(8), student, wrong(9)], data)
    assert "1 of 270 test rows" in said
    assert len(lead_by_chance([wrong(8), student, wrong(12)], data)) == 1
    assert lead_by_chance([wrong(8), student, wrong(13)], data) == []  # 5 : 0 is 1 in 32
    assert lead_by_chance([wrong(8), student, wrong(8)], data) == []  # no lead, no share
    assert lead_by_chance([wrong(8), student], data) == []


def test_networks_are_described_in_a_few_words(data: Dataset) -> None:
    assert describe(Mlp(name="mlp", hidden=(1200, 1200)), data.facts) == "mlp 64-1200-1200-10"
    assert describe(Cnn(name="cnn", channels=(8, 16)), data.facts) == "cnn 1-8-16-10"
    assert describe(Resnet(name="resnet", depth=20), data.facts) == "resnet-20 width 16"
