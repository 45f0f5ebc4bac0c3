"""The training loop: what it promises about rows, steps, modes, seeds and the best weights."""

import itertools
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from distill.data import Dataset, measure, read_dataset
from distill.evaluate import score
from distill.reporter import Reporter
from distill.seeds import derive
from distill.stages import Stage
from distill.students import build
from distill.taps import Outputs
from distill.train import Teaching, fit
from stillhouse.spec.errors import JobFailure
from stillhouse.spec.events import LogLine, Metrics, Progress, TrainerEvent
from stillhouse.spec.losses import Ce, Kd
from stillhouse.spec.states import Phase
from stillhouse.spec.students import Cnn, Mlp, Resnet
from stillhouse.spec.training import Augmentation, EarlyStopping

STAGE = Stage(
    phase=Phase.DISTILLING,
    stream="student",
    losses=(Ce(kind="ce", weight=1.0),),
    epochs=3,
    batch_size=64,
    optimizer="adamw",
    learning_rate=0.01,
    weight_decay=0.01,
    momentum=0.0,
    schedule="cosine",
    warmup_epochs=0.0,
    precision="fp32",
    augmentation=Augmentation(),
    seed=0,
    early_stopping=None,
)
SOFT = (Kd(kind="kd", temperature=4.0, weight=0.9), Ce(kind="ce", weight=0.1))


@pytest.fixture
def data(digits_file: Path) -> Dataset:
    return read_dataset(digits_file)


class Log:
    """Keeps what was reported."""

    def __init__(self, clock: Any = None) -> None:
        self.events: list[TrainerEvent] = []
        self.reporter = Reporter(self.events.append, **({"clock": clock} if clock else {}))

    def series(self, name: str) -> list[float]:
        points = [p for e in self.events if isinstance(e, Metrics) for p in e.points]
        return [p.value for p in points if p.name == name]

    def lines(self) -> list[str]:
        return [e.message for e in self.events if isinstance(e, LogLine)]


def network(data: Dataset, architecture: Any = None, seed: int = 0) -> nn.Module:
    torch.manual_seed(derive(seed, "student", "init"))
    found = measure(data)
    return build(architecture or Mlp(name="mlp", hidden=(16,)), data.facts, found.mean, found.std)


def only(data: Dataset, train: int) -> Dataset:
    """The same data with fewer training rows."""
    return replace(data, rows={**data.rows, "train": data.rows["train"][:train]})


def weights(net: nn.Module) -> Tensor:
    return torch.cat([value.flatten().double() for value in net.state_dict().values()])


def test_a_network_learns_and_ends_in_eval_mode(data: Dataset) -> None:
    net, log = network(data), Log()
    assert fit(net, [STAGE], data, None, log.reporter) == 3
    losses = log.series("distilling/loss")
    assert losses == sorted(losses, reverse=True)
    assert log.series("distilling/validation_accuracy")[-1] > 0.8
    assert not any(module.training for module in net.modules())


def test_the_student_trains_in_train_mode_in_every_epoch(data: Dataset) -> None:
    net, modes = network(data), []
    net.register_forward_hook(lambda module, given, out: modes.append((module.training, len(out))))
    fit(net, [STAGE], data, None, Log().reporter)
    steps = [rows for training, rows in modes if training]
    assert steps == [*[64] * 19, 41] * 3  # 1,257 rows: the last batch is smaller and counts
    assert [rows for training, rows in modes if not training] == [270] * 3


@pytest.mark.parametrize("architecture", [Cnn(name="cnn", channels=(4, 4, 4, 4)), Resnet(name="resnet", depth=8)])
def test_batch_norm_never_meets_a_single_row(data: Dataset, architecture: Any) -> None:
    # 129 = 2 × 64 + 1, and the last block's images are 1×1 or 2×2: a batch of one row would have no variance.
    net, sizes = network(data, architecture), []
    net.register_forward_hook(lambda module, given, out: sizes.append(len(out)) if module.training else None)
    fit(net, [replace(STAGE, epochs=1)], only(data, 129), None, Log().reporter)
    assert sizes == [64, 65]


def test_batches_of_one_become_two_under_batch_norm_and_the_log_says_so(data: Dataset) -> None:
    log, net = Log(), network(data, Cnn(name="cnn", channels=(4, 4, 4, 4)))
    fit(net, [replace(STAGE, epochs=1, batch_size=1)], only(data, 5), None, log.reporter)
    assert any("Batch norm needs two rows" in line for line in log.lines())
    with pytest.raises(JobFailure, match="single row"):
        fit(net, [STAGE], only(data, 1), None, log.reporter)


def test_the_reported_loss_is_the_mean_over_rows_not_over_batches(data: Dataset) -> None:
    # A step size of nearly nothing: the loss of the epoch is that of the fixed network.
    net, log = network(data), Log()
    small = only(data, 67)  # 64 + 3
    before = score(net, replace(small, rows={**small.rows, "test": small.rows["train"]}), "test").loss
    fit(net, [replace(STAGE, epochs=1, learning_rate=1e-12, optimizer="sgd")], small, None, log.reporter)
    assert log.series("distilling/loss") == pytest.approx([before], rel=1e-5)


def test_the_parts_of_the_loss_are_named_and_add_up(data: Dataset) -> None:
    net, log = network(data), Log()
    teacher = torch.randn(1257, 10, generator=torch.Generator().manual_seed(0))
    fit(
        net,
        [replace(STAGE, losses=SOFT)],
        data,
        Teaching(lambda batch, x, epoch: Outputs(teacher[batch])),
        log.reporter,
    )
    kd, ce, total = (log.series(f"distilling/{name}") for name in ("loss_kd", "loss_ce", "loss"))
    assert total == pytest.approx([0.9 * a + 0.1 * b for a, b in zip(kd, ce, strict=True)])
    assert len(total) == 3


def test_cached_labels_are_found_by_position_under_any_shuffle(data: Dataset) -> None:
    net = network(data)
    inputs = data.inputs(data.rows["train"])

    def teaching(batch: Tensor, x: Tensor, epoch: int) -> Outputs:
        assert torch.equal(inputs[batch], x)
        return Outputs(torch.zeros(len(x), 10))

    fit(net, [replace(STAGE, losses=SOFT, epochs=2)], data, Teaching(teaching), Log().reporter)


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(data: Dataset) -> None:
    def trained(seed: int) -> Tensor:
        net = network(data, Mlp(name="mlp", hidden=(16,), dropout=0.2), seed=seed)
        fit(net, [replace(STAGE, seed=seed)], data, None, Log().reporter)
        return weights(net)

    assert torch.equal(trained(1), trained(1))
    assert not torch.equal(trained(1), trained(2))


def test_every_epoch_has_an_order_of_its_own_and_student_and_baseline_share_them(data: Dataset) -> None:
    def orders(phase: Phase) -> list[Tensor]:
        seen: list[Tensor] = []

        def teaching(batch: Tensor, x: Tensor, epoch: int) -> Outputs:
            seen.append(batch)
            return Outputs(torch.zeros(len(batch), 10))

        stage = replace(STAGE, phase=phase, losses=SOFT, batch_size=2048)
        fit(network(data), [stage], data, Teaching(teaching), Log().reporter)
        return seen

    student, baseline = orders(Phase.DISTILLING), orders(Phase.TRAINING_BASELINE)
    assert len({tuple(order.tolist()) for order in student}) == 3
    assert all(torch.equal(a, b) for a, b in zip(student, baseline, strict=True))


def test_how_often_progress_is_reported_changes_no_bit(data: Dataset) -> None:
    def trained(clock: Any) -> tuple[Tensor, list[float]]:
        net, log = network(data, Mlp(name="mlp", hidden=(16,), dropout=0.2)), Log(clock)
        fit(net, [STAGE], data, None, log.reporter)
        return weights(net), log.series("distilling/loss")

    ticks = itertools.count(step=10)
    busy, silent = trained(lambda: next(ticks)), trained(lambda: 0.0)
    assert torch.equal(busy[0], silent[0])
    assert busy[1] == silent[1]


def test_dropout_masks_do_not_depend_on_random_numbers_drawn_elsewhere(data: Dataset) -> None:
    def trained(disturb: bool) -> Tensor:
        net = network(data, Mlp(name="mlp", hidden=(16,), dropout=0.5))
        if disturb:
            net.register_forward_hook(lambda module, given, out: torch.rand(3).sum() * 0 + out)
        fit(net, [STAGE], data, None, Log().reporter)
        return weights(net)

    with torch.random.fork_rng(devices=[]):
        assert torch.equal(trained(False), trained(True))


def test_early_stopping_ends_in_time_and_brings_the_best_weights_back(data: Dataset) -> None:
    # Far too large a step: the validation loss is best early and gets worse.
    rule = EarlyStopping(patience=2)
    stage = replace(STAGE, epochs=40, learning_rate=0.3, schedule="constant", early_stopping=rule)
    net, log = network(data), Log()
    epochs = fit(net, [stage], data, None, log.reporter)
    losses = log.series("distilling/validation_loss")
    best = losses.index(min(losses))
    assert epochs == len(losses) == best + 3 < 40
    assert score(net, data, "validation").loss == losses[best]


def test_without_early_stopping_the_last_epoch_stays(data: Dataset) -> None:
    stage = replace(STAGE, epochs=12, learning_rate=0.3, schedule="constant")
    net, log = network(data), Log()
    assert fit(net, [stage], data, None, log.reporter) == 12
    losses = log.series("distilling/validation_loss")
    assert score(net, data, "validation").loss == losses[-1] > min(losses)


def test_the_last_epoch_gives_way_to_a_better_one_where_chance_does_not_explain_it(data: Dataset) -> None:
    # A third of the labels are wrong, and in the end the network knows them by heart.
    train, random = data.rows["train"], torch.Generator().manual_seed(0)
    wrong = train[torch.rand(len(train), generator=random) < 0.34]
    y = data.y.clone()
    y[wrong] = (y[wrong] + 1) % len(data.facts.classes)
    noisy = replace(data, y=y)
    stage = replace(STAGE, epochs=60, keep="better")
    net, log = network(noisy), Log()
    assert fit(net, [stage], noisy, None, log.reporter) == 60
    losses = log.series("distilling/validation_loss")
    found = score(net, noisy, "validation")
    assert found.loss == min(losses) < losses[-1]
    assert found.accuracy > log.series("distilling/validation_accuracy")[-1]


def test_the_last_epoch_stays_where_chance_explains_that_another_is_better(data: Dataset) -> None:
    stage, nets, log = replace(STAGE, epochs=30), [network(data), network(data)], Log()
    fit(nets[0], [stage], data, None, Log().reporter)
    fit(nets[1], [replace(stage, keep="better")], data, None, log.reporter)
    losses = log.series("distilling/validation_loss")
    assert min(losses) < losses[-1]
    assert torch.equal(weights(nets[0]), weights(nets[1]))


def test_an_improvement_below_min_delta_does_not_count(data: Dataset) -> None:
    rule = EarlyStopping(patience=1, min_delta=100.0)
    net = network(data)
    assert fit(net, [replace(STAGE, epochs=9, early_stopping=rule)], data, None, Log().reporter) == 2


def test_without_a_validation_split_training_still_works(data: Dataset) -> None:
    bare = replace(data, rows={**data.rows, "validation": data.rows["validation"][:0]})
    net, log = network(bare), Log()
    assert fit(net, [STAGE], bare, None, log.reporter) == 3
    assert log.series("distilling/validation_loss") == []
    assert len(log.series("distilling/loss")) == 3


def test_a_loss_that_is_not_a_number_ends_the_job_with_a_fix(data: Dataset) -> None:
    stage = replace(STAGE, learning_rate=100.0, optimizer="sgd", momentum=0.9, schedule="constant", epochs=20)
    with pytest.raises(JobFailure) as failure:
        fit(network(data), [stage], data, None, Log().reporter)
    assert failure.value.code == "loss_not_finite"
    assert "epoch" in failure.value.detail
    assert "100" in failure.value.hint


@pytest.mark.usefixtures("bf16_everywhere")
def test_bf16_trains_as_well_with_losses_in_fp32(data: Dataset) -> None:
    seen = []
    net, log = network(data), Log()
    net.register_forward_hook(lambda module, given, out: seen.append((module.training, out.dtype)))
    fit(net, [replace(STAGE, precision="bf16", epochs=5)], data, None, log.reporter)
    assert {dtype for training, dtype in seen if training} == {torch.bfloat16}
    assert {dtype for training, dtype in seen if not training} == {torch.float32}
    assert log.series("distilling/validation_accuracy")[-1] > 0.85
    assert all(p.dtype == torch.float32 for p in net.parameters())


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_every_optimizer_and_schedule_learns(data: Dataset, optimizer: Any, schedule: Any) -> None:
    rate, momentum = (0.05, 0.9) if optimizer == "sgd" else (0.01, 0.0)
    stage = replace(
        STAGE, optimizer=optimizer, schedule=schedule, learning_rate=rate, momentum=momentum, warmup_epochs=0.5
    )
    net, log = network(data), Log()
    fit(net, [stage], data, None, log.reporter)
    assert log.series("distilling/validation_accuracy")[-1] > 0.8


def test_augmented_training_shows_other_views_every_epoch(data: Dataset) -> None:
    net, seen = network(data), []
    net.register_forward_pre_hook(lambda module, given: seen.append(given[0].sum().item()) if module.training else None)
    stage = replace(STAGE, augmentation=Augmentation(crop_padding=2), batch_size=2048)
    fit(net, [stage], data, None, Log().reporter)
    assert len(set(seen)) == 3
    assert all(total < data.inputs(data.rows["train"]).sum().item() for total in seen)


def test_two_stages_of_one_phase_count_on(data: Dataset) -> None:
    net, log = network(data), Log()
    fit(net, [replace(STAGE, epochs=2), replace(STAGE, epochs=1, stream="finetune")], data, None, log.reporter)
    points = [p for e in log.events if isinstance(e, Metrics) for p in e.points if p.name == "distilling/loss"]
    assert [p.step for p in points] == [20, 40, 60]
    ends = [e for e in log.events if isinstance(e, Progress)][-1]
    assert (ends.epoch, ends.epochs, ends.step, ends.steps) == (3, 3, 60, 60)


def test_progress_is_sent_at_the_start_at_the_end_and_once_a_second(data: Dataset) -> None:
    now = itertools.count(step=0.005)  # every look at the clock takes 5 ms
    net, log = network(data), Log(lambda: next(now))
    fit(net, [STAGE], data, None, log.reporter)
    sent = [e for e in log.events if isinstance(e, Progress)]
    assert sent[0].step == 0
    assert sent[-1].step == sent[-1].steps == 60
    assert sent[-1].eta_seconds == 0
    looks = next(now)
    assert 2 <= len(sent) <= 3 + looks
    assert all(e.rows_per_second for e in sent[1:])


def test_the_learning_rate_reported_is_the_one_of_the_last_step(data: Dataset) -> None:
    log = Log()
    fit(network(data), [STAGE], data, None, log.reporter)
    expected = [0.01 * (1 + math.cos(math.pi * (20 * k - 1) / 60)) / 2 for k in (1, 2, 3)]
    assert log.series("distilling/learning_rate") == pytest.approx(expected)
