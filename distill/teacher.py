"""The teacher of a job, wherever it comes from: one network that takes raw rows and gives logits of the dataset's
classes."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from torch import nn

from distill.data import Dataset
from distill.ensemble import Mixture
from distill.evaluate import Score
from distill.model import Model, digest
from distill.reporter import Reporter
from distill.summary import describe
from stillhouse.spec import concrete
from stillhouse.spec.events import ModelConfig
from stillhouse.spec.facts import Split
from stillhouse.spec.students import Architecture
from stillhouse.spec.teacher import Ensemble


@dataclass(frozen=True)
class Teacher:
    """A teacher, frozen and in eval mode."""

    wake: Callable[[], nn.Module]
    """Makes `net`. Called when it is first needed, which is never in a job that finds all its outputs kept."""
    described: str
    """A few words for a table."""
    parameters: int
    size_bytes: int
    """Of the files that hold it."""
    fingerprint: str
    """Its outputs depend on this, the data and the arithmetic, and on nothing else."""
    architecture: Architecture | None = None
    """Its network, when it is one of ours."""
    trained: tuple[Model, ...] = ()
    """Networks trained in this job, to be kept beside the student."""
    timing: Literal["exported", "as it runs", "never"] = "exported"
    """How its latency is found: through ONNX Runtime, and what is a graph already needs no export. `never`: several of
    which one is a graph, which torch cannot follow."""

    @cached_property
    def net(self) -> nn.Module:
        """Raw float32 rows [N, …] → logits [N, classes of the dataset]. Raises JobFailure `teacher_unusable`."""
        return self.wake()


def of_model(model: Model) -> Teacher:
    """A network trained in this job."""
    net = model.net.eval().requires_grad_(False)
    teacher = of_ours(model.config, lambda: net, sha256=model.sha256, size_bytes=len(model.weights))
    return replace(teacher, trained=(model,))


def of_ours(config: ModelConfig, wake: Callable[[], nn.Module], *, sha256: str, size_bytes: int) -> Teacher:
    """A network of one of our families, whose weights are a file of that digest and size."""
    return Teacher(
        wake,
        described=describe(config.architecture, config.facts),
        parameters=config.parameters,
        size_bytes=size_bytes,
        fingerprint=digest(json.dumps([sha256, config.model_dump_json()]).encode()),
        architecture=config.architecture,
    )


def of_several(members: Sequence[Teacher], ensemble: Ensemble) -> Teacher:
    """The members with one voice."""
    weights = [member.weight for member in ensemble.members]
    heats = [concrete(member.temperature) for member in ensemble.members]
    heat = concrete(ensemble.temperature)
    parts = ["ensemble/1", [m.fingerprint for m in members], weights, heats, heat]

    def together() -> nn.Module:
        nets = [member.net for member in members]
        return Mixture(nets, weights=weights, temperatures=heats, temperature=heat).eval()

    return Teacher(
        together,
        described="ensemble of " + ", ".join(m.described for m in members),
        parameters=sum(m.parameters for m in members),
        size_bytes=sum(m.size_bytes for m in members),
        fingerprint=digest(json.dumps(parts).encode()),
        trained=tuple(model for m in members for model in m.trained),
        timing="exported" if all(m.timing == "exported" for m in members) else "never",
    )


def introduce(teacher: Teacher, found: Score, data: Dataset, reporter: Reporter, *, member: int | None = None) -> None:
    """Show how good a teacher, or a member of an ensemble, was `found` to be on the split it is judged on, before
    anything is spent on learning from it."""
    split = judged_on(data)
    reporter.found(f"teacher{'' if member is None else f'-{member}'}/{split}_accuracy", found.accuracy)
    name = "The teacher" if member is None else f"Member {member} ({teacher.described})"
    reporter.say(f"{name} is right on {found.accuracy:.2%} of {found.rows:,} {split} rows.")


def judged_on(data: Dataset) -> Split:
    """Where teachers are looked at: the validation split, or the test split of data that has none."""
    return "validation" if len(data.rows["validation"]) else "test"
