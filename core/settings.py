"""All settings, from `STILLHOUSE_…` environment variables: units in the names, reasons beside the numbers."""

from functools import cached_property
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict, SettingsError

from stillhouse.spec.limits import Limits


class WrongSettings(ValueError):
    """A variable has a value it cannot have, or its name is none; the message names it."""


class Settings(BaseSettings):
    """What an operator can turn. The defaults are those of `stillhouse up`: everything in one folder.

    Raises WrongSettings.
    """

    model_config = SettingsConfigDict(
        env_prefix="STILLHOUSE_",
        env_nested_delimiter="__",
        frozen=True,
        extra="ignore",
        use_attribute_docstrings=True,
    )

    data_dir: Path = Path("stillhouse-data")
    """Folder of everything the embedded service keeps."""
    database_url: str | None = None
    """SQLAlchemy URL: `sqlite:///…` or `postgresql+psycopg://…`. None: SQLite in the data folder."""
    broker_url: str = "redis://127.0.0.1:6379/0"
    """Celery broker: Redis or Valkey (`redis://`), or RabbitMQ (`amqp://`)."""
    queue: str = "distill"
    """Name of the Celery queue, for several services on one broker."""
    storage_url: str | None = None
    """Where files are kept: `file:///…`, `s3://bucket/prefix`, `gs://…`, `az://…`. None: in the data folder."""
    storage_endpoint: str | None = None
    """Address of an S3-compatible store that is not AWS. Its credentials come from the usual AWS_… variables."""
    secret_key: SecretStr | None = None
    """Signs cursors and encrypts stored secrets; the same for all processes. At least 32 characters. None: made at
    first start and kept in the data folder."""

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=1, le=65535)
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["text", "json"] = "text"

    max_connections: int = Field(default=900, ge=1)
    """Open connections of one API process; those beyond it are answered 503 and closed. Keep it below the process's
    limit of open files, often 1024."""
    max_connections_per_address: int = Field(default=600, ge=1)
    """Of one client address, or one /64 of IPv6. Addresses in STILLHOUSE_TRUSTED_PROXIES are not held to it."""
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = ()
    """Networks of the proxies before the API, as CIDR, comma-separated. X-Forwarded-For and X-Forwarded-Proto are
    believed from them alone."""

    limits: Limits = Limits()
    """Nested: `STILLHOUSE_LIMITS__MAX_EPOCHS=500`."""

    outbound_allow: Annotated[tuple[str, ...], NoDecode] = ()
    """Networks that webhooks may reach although they are not public: CIDR, comma-separated, `10.1.0.0/16,fd00::/8`.
    Whoever may post a job can then make the service send requests to them."""
    outbound_http: bool = False
    """Allow webhooks to addresses with http://, unencrypted."""

    lease_seconds: float = Field(default=25, gt=0)
    """A job whose worker has not renewed its lease for this long is taken back when the reconciler looks next."""
    heartbeat_seconds: float = Field(default=5, gt=0)
    """How often a worker renews. A third of the lease or less, so that two lost renewals do no harm."""
    reconcile_seconds: float = Field(default=2, gt=0)
    """How often the reconciler looks. It bounds how long a lost doorbell delays a job."""
    cancel_poll_seconds: float = Field(default=0.5, gt=0)
    """How often a supervisor asks whether its job is still wanted. A cancel takes effect within about twice this."""
    attempt_limit: int = Field(default=3, ge=1)
    """Attempts lost with their trainer or worker before a job is failed as poison."""
    retry_seconds: float = Field(default=2, ge=0)
    """Pause before the second attempt; each further pause is four times as long."""

    trash_days: float = Field(default=7, ge=0)
    """How long deleted jobs, datasets and models can be had back before they are removed for good."""
    retention_job_days: float | None = Field(default=None, gt=0)
    """Jobs that ended longer ago are put into the trash. None: they stay."""
    retention_dataset_days: float | None = Field(default=None, gt=0)
    """Datasets that came longer ago, and that no job has named since, are put into the trash. None: they stay."""
    retention_model_days: float | None = Field(default=None, gt=0)
    """Models that came longer ago, and that taught no job since, are put into the trash. None: they stay."""
    audit_days: float = Field(default=400, gt=31)
    """Days an entry of the audit log is kept."""
    sweep_seconds: float = Field(default=60, gt=0)
    """How often the reconciler looks for what is to be expired or removed."""

    checkpoint_seconds: float = Field(default=30, gt=0)
    """At least so long from one checkpoint of a job to the next. A job that is taken over has lost at most this."""
    stop_seconds: float = Field(default=20, ge=0)
    """How long a job that is put aside, on request or because its worker is told to stop, may take to write its last
    checkpoint and have it stored; then it is stopped all the same, and goes on from the one before."""

    trainer_threads: int | None = Field(default=None, ge=1)
    """Torch threads of a trainer. None: one per core, or one for work too small to share. The same number gives the
    same bits."""
    trainer_memory_mb: int | None = Field(default=None, ge=1)
    """Memory one trainer may take, its libraries (some 500 MB) included; beyond it the job fails as out of memory.
    None: what the machine has. Linux only."""
    cache_max_bytes: int = Field(default=20 * 1024**3, ge=0)
    """What a worker keeps of datasets, models and teacher outputs; the files used longest ago go first."""
    hub_url: str = "https://huggingface.co"
    """Where workers download published weights that a spec asks for: the Hugging Face Hub or a mirror. It is shown the
    tokens that specs name. Empty: nothing is downloaded."""
    cuda_visible_devices: str | None = None
    """Passed to the trainer as CUDA_VISIBLE_DEVICES. None: all of the machine's."""

    def __init__(self, **given: Any) -> None:
        try:
            super().__init__(**given)
        except ValidationError as error:
            wrong = error.errors()[0]  # its text would go on to pydantic's own pages, and quote secrets
            name = "__".join(map(str, ("STILLHOUSE_" + str(wrong["loc"][0]), *wrong["loc"][1:]))).upper()
            missing = "there is no such setting" if wrong["type"] == "extra_forbidden" else wrong["msg"]
            raise WrongSettings(f"{name}: {missing}") from None
        except SettingsError:  # the limits are the one setting that is a group
            hint = "set limits one by one, as in STILLHOUSE_LIMITS__MAX_EPOCHS=100"
            raise WrongSettings(f"STILLHOUSE_LIMITS: must be a JSON object; or {hint}") from None

    @field_validator("outbound_allow", "trusted_proxies", mode="before")
    @classmethod
    def _networks(cls, given: object) -> object:
        networks = [item.strip() for item in given.split(",") if item.strip()] if isinstance(given, str) else given
        if isinstance(networks, list | tuple):
            for network in networks:
                ip_network(network)  # says itself what is wrong
        return networks

    @cached_property
    def resolved_database_url(self) -> str:
        """The database URL in force."""
        return self.database_url or f"sqlite:///{self.data_dir.resolve() / 'stillhouse.db'}"

    @cached_property
    def resolved_storage_url(self) -> str:
        """The storage URL in force."""
        return self.storage_url or (self.data_dir.resolve() / "storage").as_uri()

    @cached_property
    def reconciler_beat(self) -> Path:
        """A file the reconciler touches in each pass."""
        return self.work_dir / "reconciler.alive"

    @cached_property
    def work_dir(self) -> Path:
        """Folder of running attempts and of what a worker caches; lost without harm."""
        return self.data_dir.resolve() / "work"
