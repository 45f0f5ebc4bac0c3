"""The process that forks trainers, when it does not answer in time."""

import os
import signal
from typing import Any, cast

import pytest

from core.settings import Settings
from worker import trainers
from worker.trainers import ForkServer, TrainerLost


@pytest.fixture
def database_kind() -> str:
    """None is asked."""
    return "sqlite"


def test_a_fork_server_that_answers_too_late_is_not_asked_again(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = ForkServer(settings)
    try:
        server.wait_ready()
        os.kill(server._process.pid, signal.SIGSTOP)
        monkeypatch.setattr(trainers, "_ANSWER_SECONDS", 0.1)
        with pytest.raises(TrainerLost):
            server.start(cast(Any, None))
        # Let go on, it would answer the next question with the trainer it forked for this one.
        assert not server.alive
    finally:
        server.stop()
