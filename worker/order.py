"""What a supervisor hands to a trainer: one JSON line, paths and numbers, and no credentials but the tokens its job may
show to the hub."""

from pathlib import Path

from pydantic import ConfigDict, Field

from stillhouse.spec.base import Contract
from stillhouse.spec.job import JobSpec


class Order(Contract):
    """One attempt of one job."""

    model_config = ConfigDict(hide_input_in_errors=True)

    spec: JobSpec
    """Resolved."""
    dataset: str
    """Path of the stored dataset; only read."""
    teacher: str | None
    """Folder with the weights and config of a `model` teacher."""
    output: str
    """Empty folder for the results."""
    scratch: str
    """Private temporary folder."""
    dataset_sha256: str
    """Of the dataset's file, as it lies here."""
    teacher_sha256: list[str | None]
    """Of the weights of each teacher that is stored; None of one that is trained in the job."""
    latencies: str
    """Folder of what this machine knows of how long teachers take."""
    threads: int
    checkpoints: str
    """Folder to write checkpoints to, and to go on from the newest of."""
    checkpoint_seconds: float
    """At least so long from one to the next."""

    hub: str | None = None
    """Address of the hub; None: this job downloads nothing."""
    hub_tokens: dict[str, str] = Field(default_factory=dict, repr=False)
    """By the name of the secret. They travel in this line over the socket of the two, and nowhere else."""

    @property
    def output_path(self) -> Path:
        """The folder of results."""
        return Path(self.output)
