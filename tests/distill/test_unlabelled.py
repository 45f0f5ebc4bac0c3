"""Rows without a label teach what the teacher says of them, and nothing else looks at them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from torch import Tensor

from distill import RunIO, run
from distill.data import measure, read_dataset
from distill.losses import LOSSES, Batch, Objective, Targets, ce, dkd, kd
from distill.model import trained_model
from distill.sampling import balanced_weights
from distill.students import build
from distill.taps import Outputs
from distill.train import Teaching, fit
from stillhouse.spec import StoredDataset
from stillhouse.spec.errors import JobFailure
from stillhouse.spec.events import LogLine, Metrics, TrainerEvent
from stillhouse.spec.losses import Ce, Dkd, Kd
from stillhouse.spec.report import Report
from stillhouse.spec.students import Mlp
from tests.distill.conftest import digits, resolved, store
from tests.distill.test_train import SOFT, STAGE, Log, network


def _file(path: Path, keep: float, seed: int = 0) -> Path:
    """The digits, with a label left on a share `keep` of the training rows."""
    x, y, split = digits()
    gone = (split == 0) & (np.random.default_rng(seed).random(len(y)) >= keep)
    return store(path, x, np.where(gone, -1, y), split, tuple("0123456789"))


@pytest.fixture(scope="module")
def tenth(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _file(tmp_path_factory.mktemp("tenth") / "d", 0.1)


@pytest.fixture
def batch() -> tuple[Tensor, Tensor, Tensor]:
    student, teacher = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return student, teacher, torch.tensor([2, -1, 0, -1, -1, 3])


def _objective(batch: tuple[Tensor, Tensor, Tensor], *losses: Any) -> tuple[Tensor, dict[str, Tensor]]:
    student, teacher, labels = batch
    given = Batch(Outputs(student), Outputs(teacher), Targets(labels, partial=True), torch.arange(len(labels)))
    return Objective(losses)(given)


def test_in_a_mixed_batch_labels_count_where_they_are_and_the_teacher_everywhere(batch: Any) -> None:
    student, teacher, labels = batch
    weights = {"weight": 1.0}
    losses = (
        Kd(kind="kd", temperature=3.0, weight=0.9),
        Ce(kind="ce", weight=0.1, label_smoothing=0.2),
        Dkd(kind="dkd", temperature=3.0, **weights),
    )
    total, parts = _objective(batch, *losses)
    # By hand, in numpy: soft targets over six rows, cross-entropy over the three that have a label.
    log_q, known = student.log_softmax(1).numpy(), [0, 2, 5]
    target = np.full((6, 4), 0.05)
    target[known, labels[known].numpy()] += 0.8
    hard = float(-(target * log_q)[known].sum(1).mean())
    p, q = (np.exp(z.numpy() / 3) / np.exp(z.numpy() / 3).sum(1, keepdims=True) for z in (teacher, student))
    soft = float(9 * (p * np.log(p / q)).sum(1).mean())
    assert parts["ce"].item() == pytest.approx(hard, rel=1e-12)
    assert parts["kd"].item() == pytest.approx(soft, rel=1e-12)
    decoupled = dkd(student[known], teacher[known], labels[known], alpha=1.0, beta=8.0, temperature=3.0).item()
    assert parts["dkd"].item() == pytest.approx(decoupled, rel=1e-12)
    assert total.item() == pytest.approx(0.9 * soft + 0.1 * hard + decoupled, rel=1e-12)


def test_a_row_without_a_label_gets_no_gradient_from_the_labels(batch: Any) -> None:
    student, teacher, labels = batch
    student = student.clone().requires_grad_()
    _objective((student, teacher, labels), Ce(kind="ce", weight=1.0))[0].backward()
    assert (student.grad[labels < 0] == 0).all()
    assert (student.grad[labels >= 0] != 0).all()


def test_a_batch_without_any_label_has_a_hard_loss_of_zero_and_finite_gradients(batch: Any) -> None:
    student, teacher, _ = batch
    student = student.clone().requires_grad_()
    none = torch.full((6,), -1)
    total, parts = _objective(
        (student, teacher, none), Kd(kind="kd", temperature=1.0, weight=1.0), Ce(kind="ce", weight=1.0)
    )
    total.backward()
    assert parts["ce"].item() == 0
    assert total.item() == pytest.approx(kd(student, teacher, temperature=1.0).item(), rel=1e-12)
    assert student.grad.isfinite().all()


def test_with_every_label_there_the_mean_is_the_usual_one(batch: Any) -> None:
    student, teacher, labels = batch
    labels = labels.clamp(min=0)
    _, parts = _objective((student, teacher, labels), Ce(kind="ce", weight=1.0))
    assert parts["ce"].item() == pytest.approx(ce(student, labels).item(), rel=1e-12)


def test_every_registered_loss_takes_a_batch_with_missing_labels() -> None:
    readers = {kind for kind in LOSSES.names() if LOSSES[kind].reads_labels}
    assert readers == {"ce", "dkd"}, "a new loss that reads labels must skip rows without one: add it here once it does"


def test_what_trains_on_labels_sees_only_rows_that_have_one(tenth: Path) -> None:
    data = read_dataset(tenth)
    some = data.labelled()
    assert len(data.rows["train"]) == 1257
    assert len(some.rows["train"]) == 1257 - data.facts.unlabelled == data.facts.labelled
    assert data.y[some.rows["train"]].min() >= 0
    assert torch.equal(some.rows["test"], data.rows["test"])
    everything = replace(data, facts=data.facts.model_copy(update={"unlabelled": 0}))
    assert everything.labelled() is everything


def test_reported_losses_are_means_over_the_rows_each_of_them_reads(tenth: Path) -> None:
    data, log = read_dataset(tenth), Log()
    net = network(data)
    inputs, labels = data.inputs(data.rows["train"]), data.y[data.rows["train"]]
    teacher = torch.randn(1257, 10, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = net(inputs)
        expected = ce(logits[labels >= 0], labels[labels >= 0]).item(), kd(logits, teacher, temperature=4.0).item()
    stage = replace(STAGE, epochs=1, learning_rate=1e-12, optimizer="sgd", losses=SOFT)
    fit(net, [stage], data, Teaching(lambda batch, x, epoch: Outputs(teacher[batch])), log.reporter)
    found = log.series("distilling/loss_ce")[0], log.series("distilling/loss_kd")[0]
    assert found == pytest.approx(expected, rel=1e-5)


def test_class_weights_count_labelled_rows_alone(tenth: Path) -> None:
    data = read_dataset(tenth)
    labels = data.y[data.rows["train"]]
    counts = np.bincount(labels[labels >= 0].numpy(), minlength=10)
    np.testing.assert_allclose(balanced_weights(labels, 10), counts.sum() / (10 * counts), rtol=1e-6)


@pytest.mark.parametrize(
    ("where", "value", "unlabelled", "found"),
    [
        (0, -1, 0, "label lies outside"),
        (0, -2, 1, "label lies outside"),
        (0, -1, 2, "have no label"),
        (2, -1, 1, "have no label"),
    ],
)
def test_missing_labels_that_contradict_the_header_are_refused(
    tmp_path: Path, digits_file: Path, where: int, value: int, unlabelled: int, found: str
) -> None:
    stored, tensors = read_dataset(digits_file), load_file(digits_file)
    tensors["y"] = tensors["y"].copy()
    tensors["y"][np.flatnonzero(tensors["split"] == where)[0]] = value
    facts = stored.facts.model_copy(update={"unlabelled": unlabelled})
    header = StoredDataset(facts=facts, report=stored.report).model_dump_json()
    save_file(tensors, tmp_path / "wrong", {"stillhouse": header})
    with pytest.raises(JobFailure, match=found):
        read_dataset(tmp_path / "wrong")


class _Job:
    def __init__(self, dataset: Path, folder: Path, taught_by: Path | None = None, **spec: Any) -> None:
        self.events: list[TrainerEvent] = []
        out = folder / "out"
        out.mkdir()
        io = RunIO(dataset, taught_by, out, threads=1)
        self.report: Report = run(resolved(dataset, **spec), io, self.events.append).report

    def epochs(self, name: str) -> list[int]:
        return [p.step for e in self.events if isinstance(e, Metrics) for p in e.points if p.name == name]


def _teacher(digits_file: Path, folder: Path) -> Path:
    """A teacher that has seen every label, as one uploaded to the service may have."""
    data, architecture = read_dataset(digits_file), Mlp(name="mlp", hidden=(256,))
    torch.manual_seed(0)
    found = measure(data)
    net = build(architecture, data.facts, found.mean, found.std)
    fit(net, [replace(STAGE, epochs=20)], data, None, Log().reporter)
    model = trained_model("teacher", net, architecture, data.facts, found)
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(model.weights)
    (folder / "config.json").write_text(model.config.model_dump_json())
    return folder


def test_with_nine_tenths_of_the_labels_gone_the_student_beats_the_baseline_by_far(
    tenth: Path, digits_file: Path, tmp_path: Path
) -> None:
    teacher = _teacher(digits_file, tmp_path / "teacher")
    job = _Job(
        tenth,
        tmp_path,
        teacher,
        teacher={"model": "mdl_" + "0" * 26},
        student={"name": "mlp", "hidden": [32]},
        training={"epochs": 20},
        evaluation={"baseline": True},
    )
    taught, student, baseline = job.report.models
    assert taught.accuracy > 0.95
    assert student.accuracy > 0.93
    # About 125 labels are left. The baseline had as many optimizer steps.
    assert student.errors < baseline.errors - 10
    assert job.epochs("distilling/loss")[-1] == job.epochs("training_baseline/loss")[-1]


def test_a_teacher_trained_here_a_hard_loss_and_finetuning_leave_unlabelled_rows_out(
    tenth: Path, tmp_path: Path
) -> None:
    job = _Job(tenth, tmp_path, training={"epochs": 2}, finetune={"epochs": 1}, evaluation={"baseline": True})
    labelled = read_dataset(tenth).facts.labelled
    steps = -(-labelled // 32)
    assert job.epochs("training_teacher/loss")[-1] == 5 * steps
    assert job.epochs("distilling/loss")[-1] == 2 * 40
    assert job.epochs("finetuning/loss")[-1] == steps
    assert any(isinstance(e, LogLine) and "have no label" in e.message for e in job.events)
    assert json.loads(job.report.model_dump_json())["models"][2]["role"] == "baseline"
    (tmp_path / "hard").mkdir()
    hard = _Job(tenth, tmp_path / "hard", losses=[{"kind": "ce"}], evaluation={"baseline": True})
    assert hard.epochs("distilling/loss") == hard.epochs("training_baseline/loss")
    assert hard.report.models[1].errors == hard.report.models[2].errors


def test_balanced_sampling_and_weights_work_beside_missing_labels(tenth: Path) -> None:
    data = read_dataset(tenth)
    teacher = torch.zeros(1257, 10)
    for choice in ({"sampling": "balanced"}, {"class_weights": "balanced"}):
        log = Log()
        stage = replace(STAGE, epochs=2, losses=SOFT, **choice)  # type: ignore[arg-type]
        fit(network(data), [stage], data, Teaching(lambda batch, x, epoch: Outputs(teacher[batch])), log.reporter)
        losses = log.series("distilling/loss_ce")
        assert losses[1] < losses[0]
