"""What goes in and out of an attempt: inputs from the storage, results into it."""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.orm import Session

from core.db import Database
from core.settings import Settings
from core.storage import Storage, sha256_of
from models import checkpoints, datasets, jobs, project_limits, results, usage
from models.lifecycle import Lease
from models.model import ModelRow
from stillhouse.spec.base import concrete
from stillhouse.spec.errors import JobFailure, NotFound
from stillhouse.spec.events import Finished, OutputFile
from stillhouse.spec.facts import DataFacts
from stillhouse.spec.job import JobSpec
from stillhouse.spec.settle_teacher import Held
from stillhouse.spec.students import architecture_of
from stillhouse.spec.teachers import weights_file
from stillhouse.spec.teachers.config import STORED_CONFIG
from worker.checkpoints import job_folder
from worker.digests import Digests
from worker.folder import AttemptFolder
from worker.hub import hub_of, hub_tokens
from worker.order import Order

# Multiply-adds of a step that one core does in some 5 ms. Below, the threads wait for each other longer than they work.
_WORTH_SHARING = 200_000_000


@dataclass(frozen=True)
class Staged:
    """An attempt ready to run."""

    order: Order
    project_id: str
    dataset_id: str
    name: str
    spent_seconds: float
    """How long earlier attempts ran, which counts towards `max_hours`."""


@dataclass(frozen=True)
class StoredFile:
    """A result in the storage."""

    file: OutputFile
    key: str


def stage(
    database: Database, storage: Storage, settings: Settings, lease: Lease, folder: AttemptFolder, digests: Digests
) -> Staged:
    """Bring the inputs of a claimed job to this machine. Raises JobFailure."""
    with database.read() as session:
        job = jobs.brief(session, lease.job_id)
        assert job is not None, "a claimed job has a row"
        _check_room(session, settings, lease, job["project_id"])
        spec = JobSpec.model_validate(job["resolved"])
        data = datasets.get(session, job["project_id"], job["dataset_id"])
        held = [m.model and results.model(session, job["project_id"], m.model) for m in spec.teacher.members]
    cache = settings.work_dir / "cache"
    try:
        if data is None:
            raise NotFound("The dataset is no longer there.")
        dataset = _fetched(storage, data.storage_key, cache / "datasets", data.sha256, digests)
    except NotFound as error:
        hint = "Upload the dataset again and post the job with the new id."
        raise JobFailure("dataset_unusable", "The stored dataset is no longer there.", hint=hint) from error
    if dataset is None:
        # What is worked out from it is kept under this digest: it must be true.
        detail = "The stored dataset is not what was uploaded: its bytes have changed."
        raise JobFailure("dataset_unusable", detail, hint="Upload the dataset again and post the job with the new id.")
    for position, (member, row) in enumerate(zip(spec.teacher.members, held, strict=True)):
        if member.model is not None:
            own = folder.teacher if spec.teacher.ensemble is None else folder.teacher / str(position)
            _stage_teacher(storage, row or None, own, cache / "models", digests)
    teachers = [STORED_CONFIG.validate_python(row.config) for row in held if row]
    order = Order(
        # A webhook's URL often holds a secret, and the trainer has no use for it.
        spec=spec.model_copy(update={"webhook": None}),
        dataset=str(dataset),
        teacher=str(folder.teacher) if any(held) else None,
        output=str(folder.output),
        scratch=str(folder.scratch),
        dataset_sha256=data.sha256,
        teacher_sha256=[row.sha256 if row else None for row in held],
        latencies=str(cache / "latencies" / job["project_id"]),
        checkpoints=str(job_folder(settings, lease.job_id) / f"a{lease.attempt}"),
        checkpoint_seconds=settings.checkpoint_seconds,
        hub=hub_of(settings, spec),
        hub_tokens=hub_tokens(database, settings, job["project_id"], spec),
        threads=threads_for(spec, DataFacts.model_validate(data.facts), settings, teachers=teachers),
    )
    return Staged(
        order=order,
        project_id=job["project_id"],
        dataset_id=job["dataset_id"],
        name=job["name"] or lease.job_id,
        spent_seconds=job["spent_seconds"],
    )


def _check_room(session: Session, settings: Settings, lease: Lease, project_id: str) -> None:
    """Raises JobFailure for a job that would begin while its project stores more than it may: many may have been
    accepted while there was room. One that has begun goes on: its work is worth more than the little it may be over.
    """
    if checkpoints.newest(session, lease.job_id, limit=1):
        return
    stored = usage.stored_bytes(session, project_id)
    limit = project_limits.in_force(session, project_id, settings.limits).max_storage_bytes
    if stored >= limit:
        hint = (
            "Delete datasets, models, jobs or teacher outputs you no longer need (the trash counts until it is "
            "emptied), or have the limit raised; then retry the job."
        )
        raise JobFailure("storage_quota", f"The project stores {stored:,} bytes of {limit:,}.", hint=hint)


def store(storage: Storage, staged: Staged, lease: Lease, finished: Finished) -> list[StoredFile]:
    """Keep the results under a prefix of this attempt alone, so that no attempt can touch another's."""
    prefix = prefix_of(staged.project_id, lease)
    stored = []
    for file in finished.files:
        path = staged.order.output_path / file.name
        if path.parent != staged.order.output_path or sha256_of(path) != file.sha256:
            raise JobFailure("engine_fault", f"{file.name} changed after it was written.", hint="Post the job again.")
        storage.put(f"{prefix}/{file.name}", path)
        stored.append(StoredFile(file=file, key=f"{prefix}/{file.name}"))
    return stored


def threads_for(spec: JobSpec, facts: DataFacts, settings: Settings, *, teachers: Sequence[Held] = ()) -> int:
    """Torch threads of the job's trainer: one when a step is too small to share among cores. `teachers` are loaded.

    A function of the spec, its models and the machine alone, because another number of threads gives other bits.
    """
    if settings.trainer_threads is not None:
        return settings.trainer_threads
    trained = [(architecture_of(spec.student), spec.training)]
    trained += [(m.train.architecture, m.train) for m in spec.teacher.members if m.train is not None]
    # Forward, gradients of inputs, gradients of weights: about three passes.
    work = max(3 * net.macs(facts) * concrete(training.batch_size) for net, training in trained)
    # A loaded teacher only looks at the rows, and multiplies each of its weights once a row or more often.
    work = max([work, *(teacher.parameters * concrete(spec.training.batch_size) for teacher in teachers)])
    return len(os.sched_getaffinity(0)) if work > _WORTH_SHARING else 1


def prefix_of(project_id: str, lease: Lease) -> str:
    """Where the results of an attempt are kept."""
    return f"projects/{project_id}/jobs/{lease.job_id}/a{lease.attempt}"


def _stage_teacher(storage: Storage, model: ModelRow | None, into: Path, cache: Path, digests: Digests) -> None:
    if model is None:
        hint = "Post the job with a teacher that exists; GET /v1/models lists them."
        raise JobFailure("teacher_unusable", "The teacher model is no longer there.", hint=hint)
    into.mkdir(exist_ok=True)
    config = STORED_CONFIG.validate_python(model.config)
    hint = "Upload the teacher again and post the job with the new id."
    try:
        weights = _fetched(storage, model.weights_key, cache, model.sha256, digests)
    except NotFound as error:
        raise JobFailure("teacher_unusable", "The teacher's weights are no longer there.", hint=hint) from error
    if weights is None:
        detail = "The teacher's weights are not those that were uploaded: their bytes have changed."
        raise JobFailure("teacher_unusable", detail, hint=hint)
    _link(weights, into / weights_file(config))
    (into / "config.json").write_text(config.model_dump_json())


def _fetched(storage: Storage, key: str, cache: Path, sha256: str, digests: Digests) -> Path | None:
    """A stored file, to be read here; None when its bytes have changed. A damaged copy below `cache` is fetched anew.

    Raises NotFound.
    """
    path = storage.fetch(key, cache)
    if digests.of(path) != sha256 and path.is_relative_to(cache):
        path.unlink(missing_ok=True)
        path = storage.fetch(key, cache)
    return path if digests.of(path) == sha256 else None


def _link(file: Path, name: Path) -> None:
    """The same bytes under another name: a copy where the disk is another one. Nobody writes there."""
    name.unlink(missing_ok=True)  # of a try before this one, which the storage ended
    try:
        os.link(file, name)
    except OSError:
        shutil.copyfile(file, name)
