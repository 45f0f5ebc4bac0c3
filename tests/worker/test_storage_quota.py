"""A project that stores as much as it may: what waits fails clearly and can be tried again, what has begun goes on."""

import pytest

from core.settings import Settings
from models import project_limits, usage, verbs
from models.project import ProjectRow
from tests.worker.service import ANY_DATABASE, Service, spec
from tests.worker.test_resume import LONG, lose, wait_checkpoint

FULL = {"STILLHOUSE_LIMITS__MAX_STORAGE_BYTES": "1000"}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Of a service that writes checkpoints often."""
    return settings.model_copy(update={"checkpoint_seconds": 0.3, "lease_seconds": 6.0})


@ANY_DATABASE
def test_a_job_accepted_while_there_was_room_fails_with_the_fix_and_runs_once_there_is_room(service: Service) -> None:
    service.start_worker(**FULL)
    job_id = service.submit(spec())
    job = service.wait(job_id, "failed", "succeeded")
    assert job.error is not None
    assert job.error["code"] == "storage_quota"
    assert "of 1,000." in job.error["detail"]
    assert "Delete datasets" in job.error["hint"]
    assert "retry" in job.error["hint"]
    with service.database.write() as session:
        row = session.get(ProjectRow, service.project)
        assert row is not None
        project_limits.change(session, row.name, {"max_storage_bytes": 10**9})
        before = usage.stored_bytes(session, service.project)
        verbs.request_retry(session, job_id)
    service.ring(job_id)
    service.wait(job_id, "succeeded")
    with service.database.read() as session:
        assert usage.stored_bytes(session, service.project) > before, "what the worker wrote counts"


@ANY_DATABASE
def test_a_job_that_has_begun_goes_on_although_the_project_is_full_by_now(service: Service) -> None:
    worker = service.start_worker()
    service.start_reconciler()
    job_id = service.submit(spec(**LONG))
    wait_checkpoint(service, job_id)
    lose(worker)
    service.start_worker(**FULL)
    assert service.wait(job_id, "succeeded", "failed").status == "succeeded"
