"""The job spec: what a client posts. Four fields are enough; the resolved spec echoes everything else."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from stillhouse.spec.base import (
    AUTO,
    Auto,
    Contract,
    Labels,
    LaxTuple,
    Name,
    Probability,
    Seed,
)
from stillhouse.spec.facts import Task
from stillhouse.spec.ids import DatasetId, ModelId
from stillhouse.spec.losses import Loss, Softened, Temperature
from stillhouse.spec.students import Architecture, Student
from stillhouse.spec.webhook import Webhook

LearningRate = Annotated[float, Field(gt=0, le=100)]
Epochs = Annotated[int, Field(ge=1, le=1_000_000)]
BatchSize = Annotated[int, Field(ge=1, le=65_536)]


class EarlyStopping(Contract):
    """Stop when the validation loss has not fallen for a while, and keep the best weights seen."""

    patience: Annotated[int, Field(ge=1, le=10_000)] = 10
    """Epochs without improvement before training stops."""
    min_delta: Annotated[float, Field(ge=0, le=100)] = 0.0
    """Improvement smaller than this does not count."""


class RandAugment(Contract):
    """A few random operations on each image, all of one strength (Cubuk et al. 2019, arXiv:1909.13719), as torchvision
    defines them: shear, shift, rotate, brightness, colour, contrast, sharpness, posterize, solarize, equalize …"""

    ops: Annotated[int, Field(ge=1, le=8)] = 2
    """Operations on each image, one after the other."""
    magnitude: Annotated[int, Field(ge=0, le=30)] = 9
    """Their strength, from 0, none, to 30."""


MixingAlpha = Annotated[float, Field(ge=0, le=100)]


class Augmentation(Contract):
    """Random views of training images. Teacher and student always see the same view."""

    crop_padding: Annotated[int, Field(ge=0, le=64)] = 0
    """Shift each image by up to this many pixels in each direction; what enters is zero."""
    horizontal_flip: bool = False
    """Mirror each image with probability one half."""
    colour_jitter: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Strength s: brightness, contrast and saturation of each image are each multiplied by between 1 - s and 1 + s."""
    rand_augment: RandAugment | None = None
    random_erasing: Probability = 0.0
    """Probability that a rectangle of 2 to 33 % of an image becomes zero (Zhong et al. 2017, arXiv:1708.04896)."""
    mixup: MixingAlpha = 0.0
    """α > 0: each row becomes λ · itself + (1 - λ) · another of its batch, and so does its label, λ ~ Beta(α, α) (Zhang
    et al. 2017, arXiv:1710.09412). Works on tables too. 0: off."""
    cutmix: MixingAlpha = 0.0
    """α > 0: a rectangle of each image is replaced by that of another of its batch, and the label in the same share
    (Yun et al. 2019, arXiv:1905.04899). With mixup too, each batch takes one of the two. 0: off."""


class Training(Contract):
    """How weights are fitted."""

    epochs: Epochs | Auto = AUTO
    """Passes over the training split. auto: enough for about 3,000 steps, between 10 and 200."""
    batch_size: BatchSize | Auto = AUTO
    """Rows per step. auto: 128, or 32 when there are fewer than 1,280 training rows."""
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    learning_rate: LearningRate | Auto = AUTO
    """Peak step size. auto: 0.003 for adamw and adam on an mlp, 0.01 on a cnn, 0.005 on a resnet or
    mobilenet, 0.001 on a timm network (0.0003 with published weights); 0.05 for sgd (0.01 with published weights)."""
    weight_decay: Annotated[float, Field(ge=0, le=10)] | Auto = AUTO
    """auto: 0.01 for adamw, 0 for adam, 0.0005 for sgd."""
    momentum: Annotated[float, Field(ge=0, lt=1)] | Auto = AUTO
    """Nesterov momentum of sgd. auto: 0.9. The other optimizers take none."""
    max_norm: Annotated[float, Field(gt=0, le=1000)] | None = None
    """Longest vector of incoming weights a unit of a linear layer may have; longer ones are shortened after each step
    (Srivastava et al. 2014, JMLR 15 §5.1). A partner of dropout."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the step size falls to zero over all steps; constant keeps it."""
    warmup_epochs: Annotated[float, Field(ge=0, le=1000)] = 0.0
    """Epochs over which the step size rises linearly from zero."""
    precision: Literal["fp32", "bf16"] | Auto = AUTO
    """Arithmetic of the forward and backward pass; losses are always fp32. auto: fp32."""
    augmentation: Augmentation = Augmentation()
    class_weights: Literal["none", "balanced"] = "none"
    """balanced: in the ce loss a row of class c counts n / (C · n_c), where n_c of the n labelled training rows of C
    classes are of class c: rare classes count more, and all rows together as much as before."""
    sampling: Literal["uniform", "balanced"] = "uniform"
    """uniform: an epoch shows each training row once. balanced: it shows each class equally often, rows of rare classes
    several times and of common ones not all, and stays as long."""
    seed: Seed | Auto = AUTO
    """Start of every random stream. auto: 0, and for a teacher the seed of `training`. The
    same seed gives the same weights on the same kind of device."""
    early_stopping: EarlyStopping | None = None

    @model_validator(mode="after")
    def _classes_are_evened_once(self) -> Self:
        if self.class_weights == "balanced" == self.sampling:
            raise ValueError("class_weights: balanced sampling has evened the classes already; take one of the two")
        return self

    @model_validator(mode="after")
    def _momentum_belongs_to_sgd(self) -> Self:
        if self.momentum not in (AUTO, 0.0) and self.optimizer != "sgd":
            raise ValueError(f"momentum: it belongs to sgd; {self.optimizer} has its own")
        return self


class TrainTeacher(Training):
    """A teacher trained here on the true labels, before it teaches."""

    architecture: Architecture


class Previous(Contract):
    """Born-again training (Furlanello et al. 2018, arXiv:1805.04770): the student's own network learns from the labels,
    teaches its successor of the same shape, which teaches the next."""

    generations: Annotated[int, Field(ge=1, le=10)] = 1
    """How often a finished network teaches its successor; the last successor is the student."""


class Teacher(Contract):
    """Who teaches: exactly one of the fields."""

    train: TrainTeacher | None = None
    """Train an architecture on the dataset's labels first."""
    model: ModelId | None = None
    """A model the service holds: a teacher or a student of an earlier job."""
    previous: Previous | None = None
    """The student's own network, a generation earlier."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        _exactly_one_of(self, "train", "model", "previous")
        return self


class DatasetRef(Contract):
    """Which data: exactly one of the fields."""

    builtin: Literal["digits"] | None = None
    """Data that comes with the service: 1,797 handwritten digits of 8×8 pixels, from scikit-learn."""
    id: DatasetId | None = None
    """An uploaded dataset."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        _exactly_one_of(self, "builtin", "id")
        return self


class Finetune(Contract):
    """A last stage on the true labels alone, after the teacher has gone."""

    epochs: Epochs | Auto = AUTO
    """auto: a tenth of the distillation's epochs, at least one."""
    learning_rate: LearningRate | Auto = AUTO
    """Peak step size. auto: a tenth of the distillation's."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0


class Evaluation(Contract):
    """What is measured on the test split, which nothing is trained on."""

    baseline: bool = True
    """Also train the same student without a teacher, with the same budget, seed and schedule."""


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
    """auto: CUDA when the worker has it."""
    max_hours: Annotated[float, Field(gt=0, le=24 * 365)] | None = None
    """The job fails with `time_limit` after this many hours of running; None: the service's own limit."""


class JobSpec(Contract):
    """One distillation."""

    name: Name | None = None
    """What you call it; need not be unique."""
    task: Task | Auto = AUTO
    """auto: what the dataset is."""
    teacher: Teacher
    dataset: DatasetRef
    student: Student
    temperature: Temperature | Auto = AUTO
    """Short for the temperature of every loss that softens, such as `kd`. auto: 4."""
    losses: Annotated[tuple[Loss, ...], LaxTuple, Field(min_length=1, max_length=16)] | Auto = AUTO
    """Weighted sum to minimise. auto: 0.9 · kd + 0.1 · ce."""
    training: Training = Training()
    finetune: Finetune | None = None
    evaluation: Evaluation = Evaluation()
    targets: Targets = Targets()
    export: Export = Export()
    resources: Resources = Resources()
    labels: Labels = Field(default_factory=dict)
    """Your own key-value pairs; lists of jobs can be filtered by them."""
    webhook: Webhook | None = None
    """Whom to tell when the job is over. None: nobody."""

    @model_validator(mode="after")
    def _losses_agree(self) -> Self:
        if isinstance(self.losses, str):
            return self
        kinds = [loss.kind for loss in self.losses]
        if len(set(kinds)) < len(kinds):
            raise ValueError("losses: each kind may appear once; add the weights of equal ones")
        if all(loss.weight == 0 for loss in self.losses):
            raise ValueError("losses: at least one weight must be above 0")
        softened = [loss for loss in self.losses if isinstance(loss, Softened)]
        if self.temperature != AUTO and not softened:
            raise ValueError("temperature: it belongs to losses that soften, such as kd, and `losses` has none")
        for loss in softened:
            if AUTO not in (loss.temperature, self.temperature) and loss.temperature != self.temperature:
                other = f"the {loss.kind} loss says {loss.temperature}"
                raise ValueError(f"temperature: it is {self.temperature} but {other}; give one of them")
        return self


def _exactly_one_of(model: Contract, *names: str) -> None:
    given = [name for name in names if getattr(model, name) is not None]
    if len(given) != 1:
        raise ValueError(f"give exactly one of {', '.join(names)}; got {' and '.join(given) or 'none'}")
