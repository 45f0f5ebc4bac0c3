"""Who teaches."""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from stillhouse.spec.base import AUTO, Auto, Contract, LaxTuple
from stillhouse.spec.ids import ModelId
from stillhouse.spec.losses import Temperature
from stillhouse.spec.students import Architecture
from stillhouse.spec.teachers.label_map import StatedMap
from stillhouse.spec.training import Training


class TrainTeacher(Training):
    """A teacher trained here on the true labels, before it teaches."""

    architecture: Architecture
    keep: Literal["better", "last"] = "better"
    """better: the weights of the last epoch, unless those of the least validation loss are right on more validation
    rows by more than chance explains (a sign test, one-sided, 5 %): a teacher that has learnt its rows by heart, noise
    and all, has little to say. last: those of the last epoch. With early stopping, or without a validation split, there
    is no choice."""


class Previous(Contract):
    """Born-again training (Furlanello et al. 2018, arXiv:1805.04770): the student's own network learns from the labels,
    teaches its successor of the same shape, which teaches the next."""

    generations: Annotated[int, Field(ge=1, le=10)] = 1
    """How often a finished network teaches its successor; the last successor is the student."""


class Ema(Contract):
    """Mean teacher (Tarvainen & Valpola 2017, arXiv:1703.01780): the student's own weights, averaged over the steps
    behind it, teach it. The average moves with every step."""

    decay: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Share of the old average kept at each step; in the first steps less, min(decay, 1 - 1/step), so that the first
    weights are soon forgotten."""


class Member(Contract):
    """One of several teachers: exactly one of `train` and `model`."""

    train: TrainTeacher | None = None
    """Train an architecture on the dataset's labels first."""
    model: ModelId | None = None
    """A model the service holds."""
    label_map: StatedMap | None = None
    """Of a model whose classes are not the dataset's: {its class, by name or by index: class of the dataset}. None:
    worked out from the names, and echoed where it is not plain."""
    weight: Annotated[float, Field(gt=0, le=1e6)] = 1.0
    """Share of its voice; the shares of all members are scaled to sum to 1."""
    temperature: Temperature | Auto = AUTO
    """Softens this member's distribution before it is mixed. auto: the ensemble's."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        exactly_one_of(self, "train", "model")
        only_of_a_model(self.model, self.label_map)
        return self


class Ensemble(Contract):
    """Several teachers with one voice (Hinton, Vinyals, Dean 2015, arXiv:1503.02531 §1): the weighted mean of their
    softened distributions, Σ wᵢ · softmax(zᵢ / Tᵢ). It is handed on as logits which, at `temperature`, give just
    that mean."""

    members: Annotated[tuple[Member, ...], LaxTuple, Field(min_length=2, max_length=16)]
    temperature: Temperature | Auto = AUTO
    """Where the distributions are mixed. auto: where the losses soften, when that is one number; else 4."""


class Teacher(Contract):
    """Who teaches: exactly one of the fields."""

    train: TrainTeacher | None = None
    """Train an architecture on the dataset's labels first."""
    model: ModelId | None = None
    """A model the service holds: uploaded, or a teacher or a student of an earlier job."""
    label_map: StatedMap | None = None
    """Of a model whose classes are not the dataset's: {its class, by name or by index: class of the dataset}. Classes
    that lead nowhere are left out; several may lead to one. None: worked out from the names, and echoed where it is
    not plain."""
    ensemble: Ensemble | None = None
    """Several teachers, trained here or held by the service."""
    previous: Previous | None = None
    """The student's own network, a generation earlier."""
    ema: Ema | None = None
    """The student's own network, averaged over its way so far."""
    mean_over_shifts: Annotated[int, Field(ge=0, le=4)] = 0
    """Of images: n > 0 makes its logits the mean over the image shifted by up to n pixels in each direction, which
    takes (2n + 1)² passes. Made for a teacher trained with `crop_padding`: the mean is less erratic from image to
    image, so a student that never sees a shift learns more of it. 0: it looks at the image alone."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        exactly_one_of(self, "train", "model", "ensemble", "previous", "ema")
        only_of_a_model(self.model, self.label_map)
        return self

    @model_validator(mode="after")
    def _only_others_are_averaged(self) -> Self:
        if self.mean_over_shifts and self.of_itself:
            raise ValueError("mean_over_shifts: it goes with train, model or ensemble; leave it out")
        return self

    @property
    def members(self) -> tuple[Member, ...]:
        """The teachers that are trained or loaded before anything is learnt from them: one, several, or none when
        the student is its own."""
        if self.ensemble is not None:
            return self.ensemble.members
        if self.train is None and self.model is None:
            return ()
        only = Member.model_construct(train=self.train, model=self.model, label_map=self.label_map)  # checked already
        return (only,)

    @property
    def of_itself(self) -> bool:
        """True when the student's own network teaches it."""
        return self.previous is not None or self.ema is not None


def exactly_one_of(model: Contract, *names: str) -> None:
    """Raise ValueError unless exactly one of the fields is given."""
    given = [name for name in names if getattr(model, name) is not None]
    if len(given) != 1:
        raise ValueError(f"give exactly one of {', '.join(names)}; got {' and '.join(given) or 'none'}")


def only_of_a_model(model: str | None, label_map: Mapping[str, str] | None) -> None:
    """Raise ValueError for a label map of another teacher."""
    if model is None and label_map is not None:
        raise ValueError("label_map: it goes with a model; every other teacher knows the dataset's own classes")
