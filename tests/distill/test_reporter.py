"""What a job says and how often, on a clock the test holds."""

import pytest

from distill.reporter import INTERVAL, Reporter
from stillhouse.spec.events import LogLine, Metrics, PhaseStarted, Progress, TrainerEvent
from stillhouse.spec.states import Phase


class Clock:
    """Stands still until told."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def events() -> list[TrainerEvent]:
    return []


@pytest.fixture
def reporter(events: list[TrainerEvent], clock: Clock) -> Reporter:
    return Reporter(events.append, clock=clock)


def test_a_phase_is_announced_started_and_ended(reporter: Reporter, events: list[TrainerEvent], clock: Clock) -> None:
    with reporter.phase(Phase.DISTILLING, epochs=2, steps=10, rows_per_step=32):
        clock.now += 4
        reporter.advance(epoch=2, step=10)
    assert [type(event) for event in events] == [PhaseStarted, Progress, Progress, Progress]
    first, last = events[1], events[-1]
    assert isinstance(first, Progress)
    assert isinstance(last, Progress)
    assert (first.epoch, first.step, first.rows_per_second, first.eta_seconds) == (1, 0, None, None)
    assert (last.epoch, last.step, last.rows_per_second, last.eta_seconds) == (2, 10, 80.0, 0.0)


def test_between_two_reports_a_second_passes(reporter: Reporter, events: list[TrainerEvent], clock: Clock) -> None:
    with reporter.phase(Phase.DISTILLING, steps=100):
        for step in range(1, 101):
            clock.now += INTERVAL / 8  # exact in binary
            reporter.advance(step=step)
        between = [event for event in events[2:] if isinstance(event, Progress)]
        assert [event.step for event in between] == list(range(8, 97, 8))
        assert between[0].eta_seconds == pytest.approx(92 / 8)


def test_points_leave_together_with_the_next_progress(
    reporter: Reporter, events: list[TrainerEvent], clock: Clock
) -> None:
    with reporter.phase(Phase.DISTILLING, steps=4):
        for step in (1, 2):
            reporter.advance(step=step)
            reporter.measured({"loss": 1.0 / step, "loss_kd": 0.5})
        assert not any(isinstance(event, Metrics) for event in events)
        clock.now += INTERVAL
        reporter.advance(step=3)
        (batch,) = [event for event in events if isinstance(event, Metrics)]
        assert [(p.name, p.step, p.value) for p in batch.points[:3]] == [
            ("distilling/loss", 1, 1.0),
            ("distilling/loss_kd", 1, 0.5),
            ("distilling/loss", 2, 0.5),
        ]
        reporter.measured({"loss": 0.1})
    assert isinstance(events[-1], Metrics)
    assert len(events[-1].points) == 1


def test_a_second_stage_counts_on_from_where_the_first_stopped(reporter: Reporter, events: list[TrainerEvent]) -> None:
    with reporter.phase(Phase.TRAINING_BASELINE, epochs=5, steps=50):
        reporter.next_stage()
        reporter.advance(epoch=3, step=30)  # stopped early: four were planned
        reporter.next_stage()
        reporter.advance(epoch=1, step=10)
        reporter.measured({"loss": 1.0})
    last = events[-2]
    assert isinstance(last, Progress)
    assert (last.epoch, last.step) == (4, 40)
    assert isinstance(events[-1], Metrics)
    assert events[-1].points[0].step == 40


def test_times_of_ended_phases_and_of_the_present_one_are_known(reporter: Reporter, clock: Clock) -> None:
    with reporter.phase(Phase.PREPARING):
        clock.now += 2
    with reporter.phase(Phase.EXPORTING):
        clock.now += 3
        times = {stage.phase: stage.seconds for stage in reporter.stage_times()}
    assert times == {"preparing": 2.0, "exporting": 3.0}


def test_sentences_go_out_at_once(reporter: Reporter, events: list[TrainerEvent]) -> None:
    reporter.say("Read 5 rows.")
    reporter.say("Only 5.", "warning")
    assert events == [LogLine(message="Read 5 rows."), LogLine(message="Only 5.", level="warning")]
