"""What the service answers with."""

from datetime import datetime
from typing import Any, Generic, Literal, TypeVar

from pydantic import ConfigDict, Field

from stillhouse.spec.base import View
from stillhouse.spec.facts import DataFacts, DataReport, Task
from stillhouse.spec.job import JobSpec
from stillhouse.spec.report import Report
from stillhouse.spec.states import JobStatus, Phase, Verdict
from stillhouse.spec.students import Architecture
from stillhouse.spec.teachers import StoredConfig, TeacherFormat

Item = TypeVar("Item")
WaitReason = Literal["starting", "workers_busy", "project_limit", "no_worker", "no_fitting_worker", "retry_pause"]
EventType = Literal[
    "status", "phase", "attempt", "log", "cancel_requested", "finish_requested", "checkpoint", "webhook"
]


class Page(View, Generic[Item]):
    """A slice of a list, newest first unless the route says otherwise."""

    # pydantic reads attribute docstrings from the source around `Page[Item]`, which is no class and may not parse.
    model_config = ConfigDict(use_attribute_docstrings=False)

    object: Literal["list"] = "list"
    data: list[Item]
    has_more: bool
    next_cursor: str | None = Field(default=None, description="Pass as `after` to read on. It expires after a day.")


class JobError(View):
    """Why a job failed."""

    code: str
    detail: str
    hint: str


class Condition(View):
    """A side fact of a job that is neither its status nor its phase."""

    type: str
    status: bool
    reason: str
    message: str


class JobProgress(View):
    """Where the current phase stands."""

    phase: Phase
    epoch: int
    epochs: int
    step: int
    steps: int
    rows_per_second: float | None = None
    eta_seconds: float | None = None


class QueuePlace(View):
    """Why a job waits, and behind how many others. It moves as others come and go."""

    position: int
    """1: the next one a worker takes up. Those that only a free worker is missing for come first."""
    reason: WaitReason
    detail: str
    """The reason as a sentence."""


class JobUrls(View):
    """Paths below the service's address."""

    self: str
    events: str
    metrics: str
    log: str
    artifacts: str
    bundle: str
    checkpoints: str
    cancel: str
    pause: str
    resume: str
    finish: str
    retry: str
    clone: str


class Job(View):
    """A job, as it is now. No field depends on the clock, and `queue` alone on other jobs."""

    id: str
    object: Literal["job"] = "job"
    name: str | None
    status: JobStatus
    status_text: str
    """One sentence for people."""
    queue: QueuePlace | None = None
    """While it waits for a worker: its place, as of a second ago at most. None: it does not wait."""
    phase: Phase | None
    progress: JobProgress | None
    verdict: Verdict | None
    conditions: list[Condition] = Field(default_factory=list)
    error: JobError | None
    wish: Literal["finish"] | None
    """What was asked of it and is still to be done, beside what its status says."""
    cloned_from: str | None
    """The job it was cloned from."""
    attempt: int
    """How often a worker has taken it up."""
    spec: JobSpec
    """As posted."""
    resolved: JobSpec
    """As it runs: every `auto` with its value."""
    dataset_id: str
    report: Report | None
    """Once succeeded: the measured table."""
    student_model_id: str | None
    teacher_model_id: str | None
    labels: dict[str, str]
    created_at: datetime
    started_at: datetime | None
    """Start of the latest attempt."""
    finished_at: datetime | None
    deleted_at: datetime | None = None
    """When it was put into the trash; None: it is not there."""
    purge_at: datetime | None = None
    """Until then it can be restored; after that it is removed for good."""
    version: int
    """Grows with every change; the ETag is made of it."""
    urls: JobUrls


class Estimate(View):
    """What a job would cost, worked out without running it."""

    teacher_parameters: int | None
    student_parameters: int
    student_size_bytes: int
    steps: int
    """Optimizer steps of all stages together."""


class ValidatedJob(View):
    """Answer to `validate_only`: what would run."""

    object: Literal["validated_job"] = "validated_job"
    resolved: JobSpec
    estimate: Estimate
    warnings: list[str] = Field(default_factory=list)


class Dataset(View):
    """A stored dataset."""

    id: str
    object: Literal["dataset"] = "dataset"
    name: str
    source: Literal["upload", "builtin"]
    format: str
    """csv, jsonl, parquet, npz, zip or builtin."""
    bytes: int
    """Of the stored file."""
    sha256: str
    """Of the stored file: equal data has an equal digest."""
    facts: DataFacts
    report: DataReport
    created_at: datetime
    deleted_at: datetime | None = None
    """When it was put into the trash; None: it is not there."""
    purge_at: datetime | None = None
    """Until then it can be restored; after that it is removed for good."""
    missing_at: datetime | None = None
    """When its file was found to be lost: then it is of no use any more."""


class Model(View):
    """A model the service holds; its id can be a job's teacher."""

    id: str
    object: Literal["model"] = "model"
    name: str
    role: Literal["student", "teacher"]
    """What it was in the job that made it; what was uploaded is a teacher."""
    origin: Literal["job", "upload"]
    job_id: str | None
    """The job that made it, which may have been deleted since; None when it was uploaded."""
    format: TeacherFormat
    """Of the uploaded file; `stillhouse` for what jobs make."""
    network: str
    """In a few words."""
    task: Task
    shape: list[int | None]
    """One row as it takes it, (channels, height, width) or (inputs,); null: any."""
    outputs: int
    """Classes it tells apart."""
    classes: list[str] | None
    """Their names, in the order of its outputs; null: nobody said."""
    parameters: int
    config: StoredConfig
    """Everything else, its preprocessing too."""
    notes: list[str] = Field(default_factory=list)
    """Of an upload: what a careful person would want to know."""
    bytes: int
    sha256: str
    accuracy: float | None
    """On the test split of the job that made it."""
    created_at: datetime
    deleted_at: datetime | None = None
    """When it was put into the trash; None: it is not there."""
    purge_at: datetime | None = None
    """Until then it can be restored; after that it is removed for good."""
    missing_at: datetime | None = None
    """When its file was found to be lost: then it is of no use any more."""


class KeptOutputs(View):
    """What a teacher said of rows of a dataset, kept for later jobs."""

    id: str
    object: Literal["teacher_outputs"] = "teacher_outputs"
    dataset_id: str
    teacher: str
    """In a few words."""
    teacher_model_id: str | None
    """The model that taught, when the service held it; None when the job trained it, or when there were several."""
    job_id: str
    """The job that made them; when that was deleted, one that read them."""
    part: Literal["train", "held_out"]
    """Of which rows: those of the training split, or those of validation and test, by which the teacher is judged."""
    views: int
    """Random views of each row; 1 without augmentation."""
    top_k: int | None
    """The largest outputs alone; None: those of all classes."""
    rows: int
    bytes: int
    hits: int
    """Other jobs that read them instead of running the teacher."""
    created_at: datetime
    last_used_at: datetime
    """When a job last began to read or had made them."""


class Artifact(View):
    """A file of a finished job."""

    name: str
    object: Literal["artifact"] = "artifact"
    kind: str
    bytes: int
    sha256: str
    media_type: str
    url: str
    created_at: datetime
    missing_at: datetime | None = None
    """When the file was found to be lost: then it cannot be downloaded."""


class Checkpoint(View):
    """A moment of a job's training that it can go on from. The newest two are kept, until the job is over."""

    object: Literal["checkpoint"] = "checkpoint"
    number: int
    """Rises within a job."""
    attempt: int
    """Which wrote it."""
    phase: Phase
    epoch: int
    step: int
    """Optimizer steps of the phase done by then."""
    steps: int
    loss: float | None
    best: bool
    """The best student so far is the one of this moment."""
    bytes: int
    sha256: str
    created_at: datetime


class Event(View):
    """Something that happened to a job. `seq` grows by one."""

    seq: int
    object: Literal["event"] = "event"
    type: EventType
    level: Literal["info", "warning", "error"]
    message: str
    data: dict[str, Any] = Field(default_factory=dict)
    attempt: int
    created_at: datetime


class Series(View):
    """One metric over steps."""

    name: str
    points: list[tuple[int, float]]
    """(step, value), rising by step."""
    total_points: int
    """Before down-sampling."""


class MetricSeries(View):
    """Series of one job."""

    object: Literal["metrics"] = "metrics"
    job_id: str
    series: list[Series]


class StudentSize(View):
    """What one student costs on some data."""

    student: Architecture
    """As a spec writes it."""
    parameters: int
    macs: int
    """Multiply-adds of one row's forward pass."""
    size_bytes: int
    """Of model.safetensors, rounded up."""


class CatalogueEntry(View):
    """One student or loss the service knows."""

    name: str
    summary: str
    tasks: list[str]
    json_schema: dict[str, Any]
    sizes: list[StudentSize] = Field(default_factory=list)
    """Of a student, when the question names data: examples from small to large that fit it."""
    misfit: str | None = None
    """Of a student, when the question names data: why none fits."""


class Catalogue(View):
    """All of a kind."""

    object: Literal["catalogue"] = "catalogue"
    data: list[CatalogueEntry]


class Version(View):
    """What runs here."""

    version: str
    api: Literal["v1"] = "v1"
    database_revision: str | None


class Readiness(View):
    """Whether each part answers."""

    ready: bool
    checks: dict[str, str]
    """Part → `ok`, or one sentence."""
    workers: int
    """Workers whose heartbeat is fresh. Without one, jobs wait."""


class Usage(View):
    """What a project uses of what it may."""

    object: Literal["usage"] = "usage"
    storage_bytes: int
    """Datasets, models, files of jobs, checkpoints and teacher outputs; the trash counts until it is emptied."""
    max_storage_bytes: int
    max_requests_per_minute: int
    """With each API key."""
    max_uploads_per_hour: int
