"""What a trainer says while it works: one JSON line each, over a pipe, to the supervisor that owns it."""

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from stillhouse.spec.base import View
from stillhouse.spec.facts import DataFacts
from stillhouse.spec.report import Report
from stillhouse.spec.states import Phase, Verdict
from stillhouse.spec.students import Architecture


class PhaseStarted(View):
    """The job entered a phase."""

    type: Literal["phase"] = "phase"
    phase: Phase


class Progress(View):
    """How far the phase has come. Sent at most once a second."""

    type: Literal["progress"] = "progress"
    phase: Phase
    epoch: int
    """Epochs begun, from 1."""
    epochs: int
    step: int
    """Optimizer steps done in this phase."""
    steps: int
    rows_per_second: float | None = None
    eta_seconds: float | None = None
    """Estimated time to the end of this phase."""


class MetricPoint(View):
    """One value of one series."""

    name: str
    """`<phase>/<what>`: distilling/loss, distilling/loss_kd, distilling/validation_accuracy …"""
    step: int
    value: float


class Metrics(View):
    """A batch of points."""

    type: Literal["metrics"] = "metrics"
    points: list[MetricPoint]


class LogLine(View):
    """A sentence for the job's log. Never a path, a secret or a stack trace."""

    type: Literal["log"] = "log"
    level: Literal["info", "warning", "error"] = "info"
    message: str


class OutputFile(View):
    """A file the trainer left in its output folder."""

    name: str
    kind: Literal["weights", "config", "onnx", "report", "card", "checksums", "teacher_weights", "teacher_config"]
    bytes: int
    sha256: str


class ModelConfig(View):
    """config.json: everything needed to rebuild the network and to feed it."""

    format: Literal["stillhouse-model/1"] = "stillhouse-model/1"
    architecture: Architecture
    facts: DataFacts
    """Shape, classes and columns of the data it was made on."""
    mean: list[float]
    """Per channel (images) or input (tables): the network subtracts it itself, in its first layer."""
    std: list[float]
    parameters: int
    preprocessing: str
    """In words: what to feed model.onnx and the torch module."""


class Finished(View):
    """The work is done and the files are in place."""

    type: Literal["finished"] = "finished"
    report: Report
    verdict: Verdict | None
    student: ModelConfig
    teachers: list[ModelConfig] = Field(default_factory=list)
    """Of the teachers trained in this job, in the order of the spec; their weights are among the files."""
    files: list[OutputFile]


class Failed(View):
    """The work cannot go on."""

    type: Literal["failed"] = "failed"
    code: str
    detail: str
    hint: str
    retry: bool = False


class OutputsWanted(View):
    """The trainer needs a teacher's outputs and waits for an `OutputsPlace`."""

    type: Literal["outputs_wanted"] = "outputs_wanted"
    key: str
    """64 hex digits: a digest of everything the outputs depend on."""
    teacher: str
    """In a few words."""
    part: Literal["train", "held_out"] = "train"
    """Of which rows: those of the training split, or those of validation and test, by which the teacher is judged."""
    views: int
    top_k: int | None
    rows: int
    bytes: int
    """Of the file."""
    damaged: bool = False
    """True when the file at the place named before is damaged or gone: another place is asked for."""


class OutputsMade(View):
    """The trainer has made them, or could not keep them."""

    type: Literal["outputs_made"] = "outputs_made"
    key: str
    kept: bool
    """True: the whole file is at the place it was told."""


class CheckpointSaved(View):
    """A checkpoint is whole and durable: a run that finds it goes on from there, bit for bit.

    All that was reported before it stands; what a lost attempt reported after it is reported again.
    """

    type: Literal["checkpoint_saved"] = "checkpoint_saved"
    file: str
    """Its name in the folder of checkpoints. Names rise."""
    bytes: int
    sha256: str
    """Of the whole file."""
    phase: Phase
    epoch: int
    """Epochs begun in this phase, from 1."""
    step: int
    """Optimizer steps done in this phase."""
    steps: int
    loss: float | None = None
    """On the validation split after the last whole epoch, while a network is trained on data that has one."""
    best: bool = False
    """True when that loss is the lowest of this network so far."""


class Resumed(View):
    """The run goes on from a checkpoint. Said before anything is measured; a run that starts anew does not say it."""

    type: Literal["resumed"] = "resumed"
    file: str | None
    """The checkpoint's name in the folder. None: it turned out to be unfit, and the run begins anew after all."""


class Stopped(View):
    """The last word of a trainer that was asked to stop: its checkpoint is written, and another one may go on."""

    type: Literal["stopped"] = "stopped"


Wish = Literal["stop", "finish"]
"""What a run may be asked while it works. stop: write a checkpoint and end. finish: end the training with the best
weights so far, and go on to evaluation and export."""


class OutputsPlace(View):
    """The answer to `OutputsWanted`."""

    type: Literal["outputs_place"] = "outputs_place"
    path: str
    ready: bool
    """True: a file to read. False: where to make it; nobody else does."""


class Asked(View):
    """What is wished of the run, from now on."""

    type: Literal["asked"] = "asked"
    wish: Wish


TrainerEvent = Annotated[
    PhaseStarted
    | Progress
    | Metrics
    | LogLine
    | OutputsWanted
    | OutputsMade
    | CheckpointSaved
    | Resumed
    | Stopped
    | Finished
    | Failed,
    Field(discriminator="type"),
]
TRAINER_EVENT: TypeAdapter[TrainerEvent] = TypeAdapter(TrainerEvent)

Told = Annotated[OutputsPlace | Asked, Field(discriminator="type")]
"""What a supervisor says to its trainer after the order."""
TOLD: TypeAdapter[Told] = TypeAdapter(Told)
