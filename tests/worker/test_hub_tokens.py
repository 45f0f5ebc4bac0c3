"""A job shows its token to the hub and to nobody else, on each database, with a real worker and a hub on loopback."""

from collections.abc import Iterator

import pytest
import timm
from safetensors.torch import save

from core.sealing import Sealer
from models import project_secrets
from tests.hub import FakeHub, fake_hub
from tests.worker.service import ANY_DATABASE, Service, spec

TOKEN = "hf_CanaryToken0123456789"
ASKS = {"name": "timm/test_resnet", "pretrained": True, "input_size": 32, "hub_token": {"secret": "hub"}}


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    weights = timm.create_model("test_resnet", num_classes=1000).state_dict()
    with fake_hub(save(weights)) as made:
        yield made


def keep(service: Service) -> None:
    with service.database.write() as session:
        project_secrets.put(session, Sealer.of(service.settings), service.project, "hub", TOKEN)


def test_the_token_reaches_the_hub_and_does_not_follow_where_that_sends(service: Service, hub: FakeHub) -> None:
    keep(service)
    service.start_worker(STILLHOUSE_HUB_URL=hub.url)
    job_id = service.submit(spec(epochs=1, student=ASKS))
    service.wait(job_id, "succeeded")
    assert {shown for _, shown in hub.asked} == {f"Bearer {TOKEN}"}
    assert "GET" in {method for method, _ in hub.fetched}, "the weights came from there"
    assert {shown for _, shown in hub.fetched} == {None}
    assert TOKEN not in service.logs()
    with service.database.read() as session:
        [kept] = project_secrets.of_project(session, service.project)
    assert kept.last_used_at is not None


@ANY_DATABASE
def test_a_job_that_names_none_shows_none(service: Service, hub: FakeHub) -> None:
    keep(service)
    service.start_worker(STILLHOUSE_HUB_URL=hub.url)
    asks = {name: value for name, value in ASKS.items() if name != "hub_token"}
    service.wait(service.submit(spec(epochs=1, student=asks)), "succeeded")
    assert {shown for _, shown in hub.asked} == {None}


@ANY_DATABASE
def test_a_secret_deleted_before_the_job_begins_ends_it_with_the_way_out(service: Service, hub: FakeHub) -> None:
    service.start_worker(STILLHOUSE_HUB_URL=hub.url)
    row = service.wait(service.submit(spec(epochs=1, student=ASKS)), "failed")
    assert row.error is not None
    assert row.error["code"] == "secret_unavailable"
    assert "stillhouse secrets set hub" in row.error["hint"]
    assert hub.asked == []


@ANY_DATABASE
def test_a_hub_that_refuses_the_token_and_one_that_is_switched_off_are_said_so(service: Service, hub: FakeHub) -> None:
    keep(service)
    hub.status = 403
    first = service.start_worker(STILLHOUSE_HUB_URL=hub.url)
    row = service.wait(service.submit(spec(epochs=1, student=ASKS)), "failed")
    assert row.error is not None
    assert row.error["code"] == "weights_unavailable"
    assert "hub_token" in row.error["hint"]
    asked = len(hub.asked)
    first.terminate()
    first.wait(60)
    service.start_worker(STILLHOUSE_HUB_URL="")
    row = service.wait(service.submit(spec(epochs=1, student=ASKS)), "failed")
    assert row.error is not None
    assert row.error["code"] == "weights_unavailable"
    assert len(hub.asked) == asked
    assert TOKEN not in service.logs()
