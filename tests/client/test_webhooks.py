"""Webhooks through the client."""

import pytest

from stillhouse.spec.errors import NotFound
from tests.house import SPEC, House

WEBHOOK = {"webhook": {"url": "https://example.com/hook"}}


def test_a_message_is_listed_once_the_job_is_over(house: House) -> None:
    with house.client() as client:
        job = client.jobs.create(SPEC | WEBHOOK)
        assert list(client.webhooks.deliveries(job)) == []
        client.jobs.cancel(job)
        (sent,) = client.webhooks.deliveries(job.id)
    assert (sent.job_id, sent.type, sent.endpoint) == (job.id, "job.cancelled", "https://example.com")
    assert (sent.status, sent.attempts) == ("pending", 0)


def test_the_messages_of_a_job_that_does_not_exist_are_not_found(house: House) -> None:
    with house.client() as client, pytest.raises(NotFound):
        list(client.webhooks.deliveries("job_" + "0" * 26))


def test_a_rotated_secret_is_new_and_the_old_one_signs_for_a_while(house: House) -> None:
    with house.client() as client:
        before = client.webhooks.secret()
        assert client.webhooks.secret() == before
        after = client.webhooks.rotate_secret()
        assert client.webhooks.secret() == after
    assert before.secret.startswith("whsec_")
    assert after.secret != before.secret
    assert after.previous_signs_until is not None
