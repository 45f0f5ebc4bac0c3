"""What a service allows one job and one upload to ask for. Operators set them; the API and the readers obey."""

from pydantic import Field

from stillhouse.spec.base import Contract


class Limits(Contract, strict=False):  # they come as text, from environment variables
    """Upper bounds. Every refusal names the bound that was met."""

    max_epochs: int = Field(default=10_000, ge=1)
    """Epochs of any one training stage."""
    max_parameters: int = Field(default=200_000_000, ge=1)
    """Parameters of a teacher or student trained here."""
    max_teacher_parameters: int = Field(default=500_000_000, ge=1)
    """Numbers in the weights of an uploaded teacher."""
    max_batch_size: int = Field(default=8192, ge=1)
    max_hours: float = Field(default=24 * 7, gt=0)
    """Longest run of one job."""
    max_upload_bytes: int = Field(default=2 * 1024**3, ge=1)
    """Bytes of one uploaded file."""
    max_expanded_bytes: int = Field(default=8 * 1024**3, ge=1)
    """Bytes an upload may unfold to, and bytes of the stored array."""
    max_rows: int = Field(default=5_000_000, ge=1)
    max_columns: int = Field(default=10_000, ge=1)
    """Columns of a table, and 0/1 inputs its categories become."""
    max_classes: int = Field(default=10_000, ge=2)
    max_categories: int = Field(default=200, ge=2)
    """Different values of one text column of a table."""
    max_image_side: int = Field(default=1024, ge=1)
    """Pixels of the longer side of a stored image."""
    max_image_pixels: int = Field(default=50_000_000, ge=1)
    """Pixels of one uploaded image before it is resized."""
    max_compression_ratio: float = Field(default=200, gt=1)
    """Unpacked ÷ packed bytes of an archive; beyond it is a bomb."""
    max_archive_members: int = Field(default=1_000_000, ge=1)
    """Files and folders in an archive."""
    max_ingest_seconds: float = Field(default=600, gt=0)
    """Time one upload may take to read and check."""
    max_ingest_memory_bytes: int = Field(default=6 * 1024**3, ge=1)
    """Address space of the process that reads an uploaded dataset."""
    max_intake_memory_bytes: int = Field(default=10 * 1024**3, ge=1)
    """Address space of the process that reads an uploaded teacher; its libraries alone take 3.5 GiB of it."""
    max_outputs_bytes: int = Field(default=10 * 1024**3, ge=1)
    """Bytes of teacher outputs kept for one project. For new ones the least recently used make room."""
    max_requests_per_minute: int = Field(default=60_000, ge=1)
    """Requests with one API key: as many at once, then evenly refilled."""
    max_failed_keys_per_minute: int = Field(default=60, ge=1)
    """Wrong API keys from one client address, or one /64 of IPv6, in each API process. Beyond it they are answered 429
    unseen, unless they were good lately."""
    max_uploads_per_hour: int = Field(default=1000, ge=1)
    """Uploads of one project, also those that are refused: as many at once, then evenly refilled."""
    max_queued_jobs: int = Field(default=1000, ge=1)
    """Jobs of one project that wait for a worker. Submissions beyond it are refused."""
    max_running_jobs: int = Field(default=100, ge=1)
    """Jobs of one project that workers hold at once. Those beyond it wait, and jobs of others pass them."""
    max_storage_bytes: int = Field(default=1024**4, ge=1)
    """Bytes one project may keep: datasets, models, files of jobs, checkpoints, teacher outputs."""
    max_body_bytes: int = Field(default=1024**2, ge=1)
    """Bytes of a JSON body."""


class ProjectLimits(Contract):
    """Limits of one project. What is None is as the service's `Limits` say."""

    max_queued_jobs: int | None = Field(default=None, ge=1)
    """Jobs that wait for a worker."""
    max_running_jobs: int | None = Field(default=None, ge=1)
    """Jobs that workers hold at once."""
    max_storage_bytes: int | None = Field(default=None, ge=1)
    """Bytes of datasets, models, files of jobs, checkpoints and teacher outputs."""
    max_requests_per_minute: int | None = Field(default=None, ge=1)
    """Requests with each API key."""
