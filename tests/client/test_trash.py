"""Deleting and restoring by the client."""

from typing import Any

import pytest

from stillhouse.spec.errors import Conflict, NotFound
from tests.house import SPEC, House


def test_jobs_datasets_and_models_are_deleted_listed_and_restored(house: House) -> None:
    with house.client() as client:
        job = client.jobs.create(SPEC)
        with pytest.raises(Conflict, match="only a job that is over"):
            client.jobs.delete(job)
        with pytest.raises(Conflict, match="needs this dataset"):
            client.datasets.delete(job.dataset_id)
        house.succeed(house.take_up(job.id), {})
        job = client.jobs.get(job)
        assert job.student_model_id is not None
        resources: list[tuple[Any, str]] = [
            (client.jobs, job.id),
            (client.models, job.student_model_id),
        ]
        for resource, id in resources:
            deleted = resource.delete(id)
            assert deleted.purge_at is not None
            assert resource.delete(id) == deleted
            assert [item.id for item in resource.list(deleted=True)] == [id]
            assert id not in [item.id for item in resource.list()]
            assert resource.restore(id).deleted_at is None
            assert id in [item.id for item in resource.list()]
            with pytest.raises(NotFound):
                resource.delete(f"{id}x")
