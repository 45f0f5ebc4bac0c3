"""From rows to what the service answers with."""

from models.artifact import ArtifactRow
from models.checkpoint import CheckpointRow
from models.dataset import DatasetRow
from models.event import EventRow
from models.job import JobRow
from models.model import ModelRow
from models.teacher_output import TeacherOutputRow
from stillhouse.spec.events import ModelConfig
from stillhouse.spec.facts import DataFacts, DataReport
from stillhouse.spec.job import JobSpec
from stillhouse.spec.report import Report
from stillhouse.spec.states import JobStatus
from stillhouse.spec.teachers import answers_in, network_in_words
from stillhouse.spec.teachers.config import STORED_CONFIG
from stillhouse.spec.views import (
    Artifact,
    Checkpoint,
    Condition,
    Dataset,
    Event,
    Job,
    JobError,
    JobProgress,
    JobUrls,
    KeptOutputs,
    Model,
    QueuePlace,
)

_MEDIA_TYPES = {".json": "application/json", ".md": "text/markdown; charset=utf-8"}


def job_json(row: JobRow, place: QueuePlace | None) -> bytes:
    """The job's answer. An unchanged row and place give the same bytes."""
    # What the caller left out of the spec stays out; everything else is set below, so nothing is lost.
    return job_view(row, place).model_dump_json(exclude_unset=True).encode()


def job_view(row: JobRow, place: QueuePlace | None) -> Job:
    """A job, and its place in the queue while it waits."""
    status = JobStatus(row.status)
    return Job.model_validate(
        {
            "id": row.id,
            "object": "job",
            "name": row.name,
            "status": status,
            "status_text": status.wording,
            "queue": place,
            "phase": row.phase,
            "progress": None if row.progress is None else JobProgress.model_validate(row.progress),
            "verdict": row.verdict,
            "conditions": [Condition.model_validate(item) for item in row.conditions],
            "error": None if row.error is None else JobError.model_validate(row.error),
            "wish": row.wish,
            "cloned_from": row.cloned_from,
            "attempt": row.attempt,
            "spec": JobSpec.model_validate(row.spec),
            "resolved": JobSpec.model_validate(row.resolved),
            "dataset_id": row.dataset_id,
            "report": None if row.report is None else Report.model_validate(row.report),
            "student_model_id": row.student_model_id,
            "teacher_model_id": row.teacher_model_id,
            "labels": row.labels,
            "created_at": row.created_at,
            "started_at": row.started_at,
            "finished_at": row.finished_at,
            "deleted_at": row.deleted_at,
            "purge_at": row.purge_at,
            "version": row.version,
            "urls": job_urls(row.id),
        }
    )


def job_urls(job_id: str) -> JobUrls:
    """Where the parts of a job are."""
    base = f"/v1/jobs/{job_id}"
    return JobUrls(
        self=base,
        events=f"{base}/events",
        metrics=f"{base}/metrics",
        log=f"{base}/log",
        artifacts=f"{base}/artifacts",
        bundle=f"{base}/bundle.zip",
        checkpoints=f"{base}/checkpoints",
        cancel=f"{base}/cancel",
        pause=f"{base}/pause",
        resume=f"{base}/resume",
        finish=f"{base}/finish",
        retry=f"{base}/retry",
        clone=f"{base}/clone",
    )


def dataset_view(row: DatasetRow) -> Dataset:
    """A dataset."""
    return Dataset(
        id=row.id,
        name=row.name,
        source="upload" if row.builtin is None else "builtin",
        format=row.format,
        bytes=row.bytes,
        sha256=row.sha256,
        facts=DataFacts.model_validate(row.facts),
        report=DataReport.model_validate(row.report),
        created_at=row.created_at,
        deleted_at=row.deleted_at,
        purge_at=row.purge_at,
        missing_at=row.missing_at,
    )


def model_view(row: ModelRow) -> Model:
    """A model."""
    config = STORED_CONFIG.validate_python(row.config)
    facts = config.facts if isinstance(config, ModelConfig) else config
    classes, outputs = answers_in(config)
    made_by = row.job_id or row.former_job_id
    return Model.model_validate(
        {
            "id": row.id,
            "name": row.name,
            "role": row.role,
            "origin": "upload" if made_by is None else "job",
            "job_id": made_by,
            "format": row.format,
            "network": network_in_words(config),
            "task": facts.task,
            "shape": list(facts.shape),
            "outputs": outputs,
            "classes": None if classes is None else list(classes),
            "parameters": config.parameters,
            "config": config,
            "notes": row.notes,
            "bytes": row.bytes,
            "sha256": row.sha256,
            "accuracy": row.accuracy,
            "created_at": row.created_at,
            "deleted_at": row.deleted_at,
            "purge_at": row.purge_at,
            "missing_at": row.missing_at,
        }
    )


def artifact_view(row: ArtifactRow) -> Artifact:
    """A file of a job."""
    return Artifact(
        name=row.name,
        kind=row.kind,
        bytes=row.bytes,
        sha256=row.sha256,
        media_type=media_type(row),
        url=f"{job_urls(row.job_id).artifacts}/{row.name}",
        created_at=row.created_at,
        missing_at=row.missing_at,
    )


def checkpoint_view(row: CheckpointRow) -> Checkpoint:
    """A checkpoint of a job."""
    return Checkpoint.model_validate(
        {
            "number": row.number,
            "attempt": row.attempt,
            "phase": row.phase,
            "epoch": row.epoch,
            "step": row.step,
            "steps": row.steps,
            "loss": row.loss,
            "best": row.best,
            "bytes": row.bytes,
            "sha256": row.sha256,
            "created_at": row.created_at,
        }
    )


def media_type(row: ArtifactRow) -> str:
    """Content-Type of a file: by its name, and plain bytes for what no browser should interpret."""
    if row.kind == "checksums":
        return "text/plain; charset=utf-8"
    return next((kind for end, kind in _MEDIA_TYPES.items() if row.name.endswith(end)), "application/octet-stream")


def event_view(row: EventRow) -> Event:
    """An event of a job."""
    return Event.model_validate(
        {
            "seq": row.seq,
            "type": row.type,
            "level": row.level,
            "message": row.message,
            "data": row.data,
            "attempt": row.attempt,
            "created_at": row.created_at,
        }
    )


def teacher_outputs_view(row: TeacherOutputRow) -> KeptOutputs:
    """Kept outputs of a teacher."""
    return KeptOutputs(
        id=row.id,
        object="teacher_outputs",
        dataset_id=row.dataset_id,
        teacher=row.teacher,
        teacher_model_id=row.teacher_model_id,
        job_id=row.job_id,
        part="held_out" if row.part == "held_out" else "train",
        views=row.views,
        top_k=row.top_k,
        rows=row.rows,
        bytes=row.bytes,
        hits=row.hits,
        created_at=row.created_at,
        last_used_at=row.last_used_at,
    )
