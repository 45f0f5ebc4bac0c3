"""When a checkpoint is written, what it is bound to, and what it holds beside the weights."""

import errno
import os
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from distill.checkpoints import Checkpoints, Journal, Prints
from distill.checkpoints import folder as folders
from distill.checkpoints.file import State, read, write
from distill.data import read_dataset
from distill.lesson import Lesson
from distill.reporter import Reporter
from distill.train import fit
from stillhouse.spec.events import CheckpointSaved, LogLine, Progress, TrainerEvent
from tests.distill.checkpoints.runs import Attempt, Killed, few_digits, points
from tests.distill.conftest import resolved
from tests.distill.test_train import STAGE

CPU = torch.device("cpu")
SPEC: dict[str, Any] = {
    "teacher": {"train": {"architecture": {"name": "mlp", "hidden": [16]}, "epochs": 2}},
    "training": {"epochs": 3, "batch_size": 64, "learning_rate": 0.01, "early_stopping": {"patience": 3}},
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return few_digits(tmp_path_factory.mktemp("data") / "digits.safetensors")


def dies_at(phase: str, step: int) -> Any:
    def hear(event: TrainerEvent) -> None:
        if isinstance(event, CheckpointSaved) and (event.phase, event.step) == (phase, step):
            raise Killed

    return hear


class Clock:
    """Stands still until told; writing takes `cost` seconds of it."""

    now, cost = 100.0, 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(("cost", "every"), [(0.0, 30.0), (0.5, 30.0), (2.0, 100.0)])
def test_writing_takes_a_fiftieth_of_the_time_at_most(
    cost: float, every: float, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, written = Clock(), []

    def slow(path: Path, state: State) -> Any:
        clock.now += cost
        written.append(clock.now)
        return write(path, state)

    monkeypatch.setattr(folders, "write", slow)
    reporter = Reporter(lambda event: None, clock=clock)
    prints = Prints("spec", dataset, None, None, [])
    journal = Journal(reporter, CPU, checkpoints=Checkpoints(tmp_path), prints=prints, clock=clock)
    with reporter.phase(STAGE.phase):
        for second in range(600):
            clock.now += 1.0
            journal.record.notes["second"] = second  # something new each time
            journal.look()
    gaps = [later - earlier - cost for earlier, later in pairwise(written)]
    assert len(written) > 4
    assert gaps == [every] * len(gaps)


def test_what_has_not_changed_is_not_written_again(dataset: Path, tmp_path: Path) -> None:
    reporter = Reporter(lambda event: None)
    prints = Prints("spec", dataset, None, None, [])
    journal = Journal(reporter, CPU, checkpoints=Checkpoints(tmp_path, every_seconds=0.0), prints=prints)
    with reporter.phase(STAGE.phase):
        journal.look()
        assert os.listdir(tmp_path) == []  # nothing is done yet
        journal.note("chosen", 1)
        journal.look()
    assert os.listdir(tmp_path) == ["000001.checkpoint"]


def test_a_checkpoint_of_another_spec_dataset_or_teacher_is_not_taken(dataset: Path, tmp_path: Path) -> None:
    spec = resolved(dataset, **SPEC)
    other = resolved(dataset, **{**SPEC, "temperature": 2.0})
    Attempt(spec, dataset, tmp_path / "out", tmp_path / "all", hear=dies_at("distilling", 3))
    again = Attempt(other, dataset, tmp_path / "out", tmp_path / "all")
    assert again.resumed == []
    assert "passed over: it is of another spec, dataset or teacher" in again.lines
    assert again.weights == Attempt(other, dataset, tmp_path / "alone").weights
    folder = tmp_path / "teacher"
    folder.mkdir()
    prints = []
    for content in (b"one", b"two"):
        (folder / "model.safetensors").write_bytes(content)
        prints += [Prints("spec", dataset, None, at, []).work for at in (None, folder)]
    (tmp_path / "other").write_bytes(b"other data")
    prints += [
        Prints("spec", tmp_path / "other", None, None, []).work,
        Prints("spec", dataset, "f" * 64, None, []).work,
    ]
    assert len(set(prints)) == len(prints) - 1  # that without a teacher is the same twice


def test_other_arithmetic_goes_on_and_says_so(dataset: Path, tmp_path: Path) -> None:
    spec = resolved(dataset, **SPEC)
    Attempt(spec, dataset, tmp_path / "out", tmp_path / "all", hear=dies_at("distilling", 3))
    again = Attempt(spec, dataset, tmp_path / "out", tmp_path / "all", threads=2)
    assert again.resumed
    assert any("with other threads" in warning for warning in again.report["warnings"])


@pytest.mark.parametrize("damage", ["truncated", "bit", "empty"])
def test_a_run_falls_back_to_the_checkpoint_before_and_ends_the_same(
    damage: str, dataset: Path, tmp_path: Path
) -> None:
    spec = resolved(dataset, **SPEC)
    Attempt(spec, dataset, tmp_path / "out", tmp_path / "all", hear=dies_at("distilling", 5))
    before, newest = sorted((tmp_path / "all").iterdir())
    content = bytearray(newest.read_bytes())
    content[-100] ^= 8
    newest.write_bytes({"truncated": content[:4000], "bit": content, "empty": b""}[damage])
    again = Attempt(spec, dataset, tmp_path / "out", tmp_path / "all")
    assert again.resumed == [before.name]
    assert f"{newest.name} is passed over" in again.lines
    assert min(int(event.file[:6]) for event in again.saved) > int(newest.stem)  # no name comes twice
    assert again.weights == Attempt(spec, dataset, tmp_path / "alone").weights


def test_a_run_with_no_usable_checkpoint_starts_anew(dataset: Path, tmp_path: Path) -> None:
    spec = resolved(dataset, **SPEC)
    Attempt(spec, dataset, tmp_path / "out", tmp_path / "all", hear=dies_at("distilling", 5))
    for path in (tmp_path / "all").iterdir():
        path.write_bytes(path.read_bytes()[:-1])
    again = Attempt(spec, dataset, tmp_path / "out", tmp_path / "all")
    assert again.resumed == []
    assert again.weights == Attempt(spec, dataset, tmp_path / "alone").weights


@pytest.mark.parametrize("part", ["lesson/net", "lesson/objective", "lesson/optimizer", "networks/training_teacher"])
def test_a_whole_checkpoint_that_does_not_fit_is_given_up_and_the_run_begins_anew(
    part: str, dataset: Path, tmp_path: Path
) -> None:
    spec = resolved(dataset, **SPEC)
    Attempt(spec, dataset, tmp_path / "out", tmp_path / "all", hear=dies_at("distilling", 5))
    for path in (tmp_path / "all").iterdir():
        state = read(path)
        wrong = {name: value for name, value in state.tensors.items() if not name.startswith(part)}
        write(path, State(state.facts, {**wrong, f"{part}/999/weight": torch.zeros(3)}))
    newest = max(path.name for path in (tmp_path / "all").iterdir())
    again = Attempt(spec, dataset, tmp_path / "out", tmp_path / "all")
    assert "belongs to other networks: the run begins anew" in again.lines
    assert again.resumed == [newest, None]  # so whoever keeps the series begins them anew as well
    alone = Attempt(spec, dataset, tmp_path / "alone")
    assert again.weights == alone.weights
    assert again.report == alone.report


def test_a_disk_that_refuses_costs_a_warning_and_not_the_run(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, state: State) -> Any:
        raise OSError(errno.ENOSPC, "no space")

    spec = resolved(dataset, **SPEC)
    monkeypatch.setattr(folders, "write", full)
    out = Attempt(spec, dataset, tmp_path / "out", tmp_path / "all")
    assert out.saved == []
    warned = [event for event in out.events if isinstance(event, LogLine) and "the disk refused" in event.message]
    assert len(warned) == 1
    assert out.weights == Attempt(spec, dataset, tmp_path / "alone").weights


def test_a_checkpoint_holds_the_best_student_as_its_file_would(dataset: Path, tmp_path: Path) -> None:
    spec, bests = resolved(dataset, **SPEC), []

    def hear(event: TrainerEvent) -> None:
        if isinstance(event, CheckpointSaved):
            held = load_file(tmp_path / "all" / event.file)
            best = {n.removeprefix("best/"): value.clone() for n, value in held.items() if n.startswith("best/")}
            bests.append((event, best))

    out = Attempt(spec, dataset, tmp_path / "out", tmp_path / "all", hear=hear)
    student = load_file(tmp_path / "out" / "model.safetensors")
    last = bests[-1][1]
    assert {name: value.tolist() for name, value in last.items()} == {n: v.tolist() for n, v in student.items()}
    assert all(not best for event, best in bests if event.phase == "training_teacher")
    learning = [(event, best) for event, best in bests if event.phase == "distilling"]
    assert all(set(best) == set(student) for _, best in learning)
    losses = [value for name, _, value in points(out.events) if name == "distilling/validation_loss"]
    for event, _ in learning[:-1]:  # at the last the lesson is over
        seen = losses[: (event.step - 1) // 4]  # an epoch has four steps
        assert event.loss == (seen[-1] if seen else None)
        assert event.best == bool(seen and seen[-1] == min(seen))


class Noisy(nn.Module):
    """Draws from torch's own stream, as networks may that have no layer of dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        return self.linear(x + torch.randn_like(x) if self.training else x)


def test_random_numbers_that_no_purpose_names_go_on_where_they_were(dataset: Path, tmp_path: Path) -> None:
    data, stages = read_dataset(dataset), [replace(STAGE, epochs=2), replace(STAGE, epochs=2, stream="more")]

    def trained(folder: Path | None, dies_after: int | None = None) -> Tensor:
        def hear(event: TrainerEvent) -> None:
            if isinstance(event, Progress) and event.step == dies_after:
                raise Killed

        reporter = Reporter(hear, interval=0.0)
        kept = None if folder is None else Checkpoints(folder, every_seconds=0.0, share=1e9)
        journal = Journal(reporter, CPU, checkpoints=kept, prints=Prints("", dataset, None, None, []))
        reporter.each_time(journal.look)
        journal.take_up()
        torch.manual_seed(3)
        net = Noisy()
        fit(net, stages, data, None, reporter, Lesson(journal, "one", "one"))
        second = nn.Sequential(Noisy())
        fit(second, [STAGE], data, None, reporter, Lesson(journal, "two", "two"))
        return torch.cat([p.detach().flatten() for n in (net, second) for p in n.parameters()])

    expected = trained(None)
    for after in (3, 11):
        folder = tmp_path / str(after)
        with pytest.raises(Killed):
            trained(folder, after)
        assert torch.equal(trained(folder), expected)
    # Both lessons are over: they are recalled.
    assert torch.equal(trained(folder), expected)
