"""How weights are fitted: the parts of a spec that say so."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from stillhouse.spec.base import AUTO, Auto, Contract, LaxTuple, Name, Probability, Seed
from stillhouse.spec.losses import Loss, Temperature, TemperatureRamp, losses_agree
from stillhouse.spec.losses.layers import LayerPath

LearningRate = Annotated[float, Field(gt=0, le=100)]
Epochs = Annotated[int, Field(ge=1, le=1_000_000)]
BatchSize = Annotated[int, Field(ge=1, le=65_536)]
Schedule = Literal["cosine", "linear", "constant"]


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
    schedule: Schedule = "cosine"
    """How the step size falls to zero over all steps; constant keeps it."""
    warmup_epochs: Annotated[float, Field(ge=0, le=1000)] = 0.0
    """Epochs over which the step size rises linearly from zero."""
    precision: Literal["fp32", "bf16"] | Auto = AUTO
    """Arithmetic of the forward and backward pass, and of the teacher for this stage; losses, and what is measured, are
    always fp32. On a CPU or GPU without instructions for bf16 the job is worked out in fp32, and its report says so.
    auto: fp32."""
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


class Finetune(Contract):
    """A last stage on the true labels alone, after the teacher has gone."""

    epochs: Epochs | Auto = AUTO
    """auto: a tenth of the distillation's epochs, at least one."""
    learning_rate: LearningRate | Auto = AUTO
    """Peak step size. auto: a tenth of the distillation's."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0


class Stage(Contract):
    """One stretch of the student's training, with losses and a step size of its own. What it does not say is as in
    `training`."""

    name: Name | None = None
    """What you call it in the log."""
    losses: Annotated[tuple[Loss, ...], LaxTuple, Field(min_length=1, max_length=16)]
    """Weighted sum to minimise."""
    temperature: Temperature | TemperatureRamp | Auto = AUTO
    """Short for the temperature of every loss of this stage that softens. auto: the spec's own `temperature`, or 4."""
    epochs: Epochs | Auto = AUTO
    """auto: those of `training`, shared equally among the stages that leave it open, at least one."""
    learning_rate: LearningRate | Auto = AUTO
    """Peak step size. auto: that of `training`."""
    schedule: Schedule | Auto = AUTO
    """How the step size falls to zero over the steps of this stage. auto: as in `training`."""
    warmup_epochs: Annotated[float, Field(ge=0, le=1000)] = 0.0
    """Epochs over which the step size rises linearly from zero."""
    early_stopping: EarlyStopping | None = None
    freeze: Annotated[tuple[LayerPath, ...], LaxTuple, Field(max_length=256)] = ()
    """Layers of the student that this stage leaves as they are, by their path in torch's `named_modules()`; what lies
    inside them stays too, batch norm's running figures included. The baseline is trained whole."""

    @model_validator(mode="after")
    def _losses_agree(self) -> Self:
        losses_agree(self.losses, self.temperature)
        return self
