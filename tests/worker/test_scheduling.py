"""Turns with real workers: who comes first, who waits, and that nobody waits for nothing."""

from models import keys, queue, verbs
from stillhouse.spec.views import QueuePlace
from tests.worker.service import Service, eventually, spec

TINY = spec(epochs=1)


def other_project(service: Service) -> str:
    with service.database.write() as session:
        return keys.project_named(session, "other").id


def place(service: Service, job_id: str) -> QueuePlace | None:
    limits, fresh = service.settings.limits, service.settings.lease_seconds
    with service.database.read() as session:
        line = queue.look(session, running_limit=limits.max_running_jobs, fresh_seconds=fresh)
    return line.places.get(job_id)


def test_a_flood_of_one_project_does_not_hold_up_the_job_of_another(service: Service) -> None:
    """Also: one ring is enough for all of them, and no reconciler is needed between them."""
    flood = [service.submit(TINY, ring=False) for _ in range(20)]
    single = service.submit(TINY, ring=False, project=other_project(service))
    service.start_worker()
    service.ring(flood[0])
    service.wait(single, "succeeded")
    began = service.job(single).started_at
    assert began is not None
    before = [id for id in flood if (start := service.job(id).started_at) is not None and start < began]
    assert len(before) <= 1
    for job_id in flood[:6]:
        service.wait(job_id, "succeeded")
    starts = [service.job(job_id).started_at for job_id in flood[:6]]
    assert all(start is not None for start in starts)
    assert starts == sorted(starts, key=str)


def test_a_job_that_needs_cuda_waits_and_says_so_while_others_pass(service: Service) -> None:
    service.start_worker(STILLHOUSE_CUDA_VISIBLE_DEVICES="")
    service.start_reconciler()
    cuda = service.submit(spec(resources={"device": "cuda", "memory_gb": 0.5}))
    huge = service.submit(spec(resources={"memory_gb": 900_000.0}))
    plain = service.submit(spec(resources={"device": "cpu", "memory_gb": 0.5}))
    service.wait(plain, "succeeded")
    for job_id, needs in ((cuda, "CUDA and 0.5 GB of memory"), (huge, "900000 GB of memory")):
        found = place(service, job_id)
        assert found is not None
        assert found.reason == "no_fitting_worker"
        assert needs in found.detail
        assert service.job(job_id).attempt == 0
        # Nobody rings for what no worker could take up.
        assert service.job(job_id).rung_at is None


def test_a_project_at_its_limit_waits_and_its_next_job_starts_when_one_ends(service: Service) -> None:
    limited = {"STILLHOUSE_LIMITS__MAX_RUNNING_JOBS": "1"}
    service.start_worker(**limited)
    service.start_worker(**limited)
    first = service.submit(spec(epochs=5000))
    service.wait_training(first)
    second, foreign = service.submit(TINY), service.submit(TINY, project=other_project(service))
    service.wait(foreign, "succeeded")
    assert service.job(second).status == "queued"
    with service.database.write() as session:
        verbs.request_cancel(session, first)
    service.wait(second, "succeeded")


def test_a_job_of_high_priority_is_next_and_interrupts_nobody(service: Service) -> None:
    service.start_worker()
    running = service.submit(spec(epochs=300))
    service.wait_training(running)
    normal, high = service.submit(TINY), service.submit(TINY | {"priority": "high"})
    for position, job_id in ((1, high), (2, normal)):
        found = place(service, job_id)
        assert found is not None
        assert (found.position, found.reason) == (position, "workers_busy")
    ended = service.wait(normal, "succeeded")
    urgent, first = service.job(high), service.job(running)
    assert (first.attempt, first.status) == (1, "succeeded")
    assert first.finished_at is not None
    assert urgent.started_at is not None
    assert ended.started_at is not None
    assert first.finished_at <= urgent.started_at < ended.started_at
    eventually(lambda: place(service, normal) is None, "it has left the queue")
