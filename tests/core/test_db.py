"""Connections to the database."""

from core.db import Database
from core.settings import Settings


def test_a_postgresql_that_falls_silent_is_noticed_while_the_lease_still_holds(postgres_url: str) -> None:
    database = Database(postgres_url)
    with database.engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert driver is not None
        asked = driver.info.get_parameters()
    database.close()
    probes = int(asked["keepalives_interval"]) * int(asked["keepalives_count"])
    unsent, unanswered = int(asked["tcp_user_timeout"]) / 1000, int(asked["keepalives_idle"]) + probes
    settings = Settings()
    # A worker gives its lease up at 80 %, and its heartbeat may have begun to wait just before the next was due.
    left = 0.8 * settings.lease_seconds - settings.heartbeat_seconds
    assert max(unsent, unanswered) < left
