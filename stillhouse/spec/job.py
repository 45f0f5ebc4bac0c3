"""The job spec: what a client posts. Four fields are enough; the resolved spec echoes everything else."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from stillhouse.spec.base import AUTO, Auto, Contract, Labels, LaxTuple, Name, Probability
from stillhouse.spec.facts import Task
from stillhouse.spec.ids import DatasetId
from stillhouse.spec.losses import Ce, Loss, Softened, Temperature, TemperatureRamp, losses_agree
from stillhouse.spec.students import Student
from stillhouse.spec.teacher import Teacher, exactly_one_of
from stillhouse.spec.teacher_outputs import TeacherOutputs
from stillhouse.spec.training import Finetune, Stage, Training
from stillhouse.spec.webhook import Webhook


class DatasetRef(Contract):
    """Which data: exactly one of the fields."""

    builtin: Literal["digits"] | None = None
    """Data that comes with the service: 1,797 handwritten digits of 8×8 pixels, from scikit-learn."""
    id: DatasetId | None = None
    """An uploaded dataset."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        exactly_one_of(self, "builtin", "id")
        return self


class Evaluation(Contract):
    """What is measured on the test split, which nothing is trained on."""

    baseline: bool = True
    """Also train the same student without a teacher, with the same budget, seed and schedule."""
    teacher_gate: Literal["on", "off"] = "on"
    """on: the baseline is trained first, and where it beats the teacher on the validation split (on the test split when
    there is none) by more than chance explains, the job ends before anything is learnt from that teacher. It needs the
    baseline, and a teacher other than the student itself."""


class Targets(Contract):
    """What the student must reach for the verdict `passed`. Only what is given counts."""

    min_accuracy: Probability | None = None
    min_agreement: Probability | None = None
    """Share of test rows on which student and teacher give the same class."""
    max_size_mb: Annotated[float, Field(gt=0)] | None = None
    """Size of model.safetensors, in 10⁶ bytes."""
    max_latency_ms: Annotated[float, Field(gt=0)] | None = None
    """Median of one row through the exported student on the worker's CPU."""


class Export(Contract):
    """Files beside model.safetensors."""

    onnx: bool = True
    """model.onnx with a dynamic batch, checked against the torch student on test rows."""


class Resources(Contract):
    """Where and how long."""

    device: Literal["cpu", "cuda"] | Auto = AUTO
    """auto: CUDA when the worker has it. cuda: only a worker that has it takes the job up."""
    memory_gb: Annotated[float, Field(gt=0, le=1_000_000)] | None = None
    """Only a worker with at least so much main memory takes the job up, in 10⁹ bytes. None: any worker."""
    max_hours: Annotated[float, Field(gt=0, le=24 * 365)] | None = None
    """The job fails with `time_limit` after this many hours of running, all attempts together; None: the service's own
    limit. Waiting and pauses do not count, and `retry` counts anew."""


Priority = Literal["low", "normal", "high"] | Annotated[int, Field(ge=-100, le=100)]
_WORDS = {"low": -10, "normal": 0, "high": 10}


def priority_number(priority: Priority) -> int:
    """The number a word stands for."""
    return _WORDS[priority] if isinstance(priority, str) else priority


class JobSpec(Contract):
    """One distillation."""

    name: Name | None = None
    """What you call it; need not be unique."""
    task: Task | Auto = AUTO
    """auto: what the dataset is."""
    teacher: Teacher
    dataset: DatasetRef
    student: Student
    temperature: Temperature | TemperatureRamp | Auto = AUTO
    """Short for the temperature of every loss that softens, such as `kd`: a number, or how it moves. auto: 4."""
    losses: Annotated[tuple[Loss, ...], LaxTuple, Field(min_length=1, max_length=16)] | Auto | None = AUTO
    """Weighted sum to minimise. auto: 0.9 · kd + 0.1 · ce; beside the teacher `ema` 1 · ce and kd
    with a weight that rises from 0 to 1 over the first 30 % of the steps; None where `stages` say it."""
    training: Training = Training()
    finetune: Finetune | None = None
    """A last stage on the labels alone, with a small step size."""
    stages: Annotated[tuple[Stage, ...], LaxTuple, Field(min_length=1, max_length=8)] | None = None
    """Instead of `losses` and `finetune`: stages of the student's training, one after the other, such as a hint stage,
    then kd, then the labels alone."""
    teacher_outputs: TeacherOutputs = TeacherOutputs()
    evaluation: Evaluation = Evaluation()
    targets: Targets = Targets()
    export: Export = Export()
    resources: Resources = Resources()
    priority: Priority = "normal"
    """Which of the project's waiting jobs comes first: `low` (-10), `normal` (0), `high` (10), or a number; higher is
    sooner. A point is worth an hour of waiting, so nothing waits for ever. What runs is never interrupted for it, and
    it is worth nothing against other projects."""
    labels: Labels = Field(default_factory=dict)
    """Your own key-value pairs; lists of jobs can be filtered by them."""
    webhook: Webhook | None = None
    """Whom to tell when the job is over. None: nobody."""

    @model_validator(mode="after")
    def _stages_stand_alone(self) -> Self:
        if self.stages is None:
            return self
        for name, free in (("losses", AUTO), ("finetune", None)):
            if getattr(self, name) not in (free, None):
                raise ValueError(f"{name}: `stages` say it already; leave one of the two out")
        if self.temperature != AUTO and not any(isinstance(x, Softened) for stage in self.stages for x in stage.losses):
            raise ValueError("temperature: it belongs to losses that soften, such as kd, and no stage has one")
        if self.training.early_stopping is not None:
            raise ValueError("training: each of the `stages` has its own early_stopping; say it there")
        if self.training.warmup_epochs:
            raise ValueError("training: each of the `stages` has its own warmup_epochs; say it there")
        return self

    @model_validator(mode="after")
    def _losses_agree(self) -> Self:
        if self.losses is None and self.stages is None:
            raise ValueError("losses: None belongs beside `stages`; say auto, or name some")
        if isinstance(self.losses, tuple):
            losses_agree(self.losses, self.temperature)
        return self

    def plan(self) -> tuple[Stage, ...]:
        """The stages of the student's training, of a resolved spec: those it names, or distillation and, if asked for,
        fine-tuning on the labels."""
        if self.stages is not None:
            return self.stages
        assert isinstance(self.losses, tuple)
        training = self.training
        first = Stage(
            losses=self.losses,
            epochs=training.epochs,
            learning_rate=training.learning_rate,
            schedule=training.schedule,
            warmup_epochs=training.warmup_epochs,
            early_stopping=training.early_stopping,
        )
        if self.finetune is None:
            return (first,)
        hard = Ce(kind="ce", weight=1.0, label_smoothing=self.finetune.label_smoothing)
        last = Stage(
            losses=(hard,),
            epochs=self.finetune.epochs,
            learning_rate=self.finetune.learning_rate,
            schedule="cosine",
        )
        return (first, last)
