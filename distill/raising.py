"""Where networks of a job begin: with fresh weights, from files, or as an ancestor of the student."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from distill.checkpoints import Journal
from distill.data import Dataset, Statistics
from distill.evaluate import score
from distill.hub import PUBLIC, Hub
from distill.lesson import Lesson
from distill.losses import needs_teacher
from distill.model import Model, trained_model
from distill.reporter import Reporter
from distill.seeds import derive
from distill.shifts import over_shifts
from distill.stages import Stage, of_generation, stage_of, without_teacher
from distill.stored import stored
from distill.students import build
from distill.students.from_timm import make_ready
from distill.teacher import Teacher, introduce, judged_on, of_model, of_several
from distill.teaching import live
from distill.train import Teaching, fit
from stillhouse.spec import JobSpec, concrete
from stillhouse.spec.losses import Ce, Loss
from stillhouse.spec.states import Phase
from stillhouse.spec.students import Architecture
from stillhouse.spec.teacher import TrainTeacher

_HARD_LABELS: tuple[Loss, ...] = (Ce(kind="ce", weight=1.0),)


@dataclass(frozen=True)
class Nursery:
    """What networks are made from and trained on, and a record of how long that took."""

    spec: JobSpec
    data: Dataset
    statistics: Statistics
    reporter: Reporter
    journal: Journal
    hub: Hub = PUBLIC
    epochs: dict[str, int] = field(default_factory=dict)
    """Epochs each stage really ran, by the name of its series."""

    def fresh(self, architecture: Architecture, *, stream: str = "student", seed: int | None = None) -> nn.Module:
        """A network with its first weights, which depend on the stream and the seed alone."""
        seed = concrete(self.spec.training.seed) if seed is None else seed
        # Drawn on the CPU, so every device starts from the same weights.
        torch.default_generator.manual_seed(derive(seed, stream, "init"))
        net = build(architecture, self.data.facts, self.statistics.mean, self.statistics.std)
        make_ready(net, architecture, self.data.facts, self.hub)
        return net.to(self.data.x.device)

    def model(
        self, role: Literal["teacher", "student", "baseline"], net: nn.Module, architecture: Architecture
    ) -> Model:
        """A network made here, with everything its files need."""
        return trained_model(role, net, architecture, self.data.facts, self.statistics)

    def fit(self, network: str, net: nn.Module, stages: Sequence[Stage], teaching: Teaching | None = None) -> int:
        """Train the network called `network`, on the labels alone where nobody teaches it; return the epochs."""
        # Where nothing reads the teacher there is nothing to learn from rows without a label.
        data = self.data if any(needs_teacher(stage.losses) for stage in stages) else self.data.labelled()
        average = None if teaching is None else teaching.average
        lesson = Lesson(self.journal, stages[0].name, network, average)
        return fit(net, stages, data, teaching, self.reporter, lesson)


@dataclass(frozen=True)
class Entrant:
    """A teacher before it is ready: a fresh network and how to train it, or one that came in files."""

    recipe: TrainTeacher | None
    fresh: nn.Module | None
    ready: Teacher | None
    series: str | None

    @property
    def net(self) -> nn.Module:
        """The network, loaded if it was not yet."""
        found = self.ready.net if self.ready is not None else self.fresh
        assert found is not None  # one of the two is there
        return found


def entrants(spec: JobSpec, nursery: Nursery, folder: Path | None, sha256: Sequence[str | None]) -> list[Entrant]:
    """Those that will teach, none of them trained yet. `sha256` are the digests of weights that are known. Raises
    JobFailure when the files of one are not there or do not fit the data."""
    out = []
    several = spec.teacher.ensemble is not None
    for position, member in enumerate(spec.teacher.members):
        series = f"{Phase.TRAINING_TEACHER}-{position}" if several else None
        if member.train is not None:
            net = nursery.fresh(member.train.architecture, stream="teacher", seed=concrete(member.train.seed))
            out.append(Entrant(member.train, net, None, series))
        else:
            own = folder / str(position) if several and folder is not None else folder
            batch = concrete(spec.training.batch_size)
            known = sha256[position] if sha256 else None
            teacher = stored(own, nursery.data, member.label_map, known, batch=batch, reporter=nursery.reporter)
            out.append(Entrant(None, None, teacher, series))
    return out


def graduate(spec: JobSpec, nursery: Nursery, candidates: Sequence[Entrant]) -> Teacher:
    """Train on the labels those that are not ready, and give all of them one voice."""
    for entrant in candidates:
        if entrant.ready is not None and len(candidates) > 1:
            entrant.ready.net  # noqa: B018 - one that cannot be loaded is found out before others are trained
    teachers = [_graduated(nursery, entrant) for entrant in candidates]
    if spec.teacher.ensemble is None:
        return over_shifts(teachers[0], spec.teacher.mean_over_shifts)
    for position, teacher in enumerate(teachers):
        found = score(teacher.net, nursery.data, judged_on(nursery.data), between=nursery.reporter.breathe)
        introduce(teacher, found, nursery.data, nursery.reporter, member=position)
    return over_shifts(of_several(teachers, spec.teacher.ensemble), spec.teacher.mean_over_shifts)


def ancestor(generations: int, architecture: Architecture, stages: list[Stage], nursery: Nursery) -> nn.Module:
    """The student's predecessor: the first learns from the labels, each other one from the one before (Furlanello et
    al. 2018, arXiv:1805.04770 §3). Each starts from weights of its own."""
    net = nursery.fresh(architecture, stream="generation 0")
    run = nursery.fit("generation 0", net, of_generation(without_teacher(stages, nursery.data), 0))
    for generation in range(1, generations):
        teacher = net.requires_grad_(False)
        net = nursery.fresh(architecture, stream=f"generation {generation}")
        for stage in of_generation(stages, generation):
            taught = live(teacher, stage) if needs_teacher(stage.losses) else None
            run += nursery.fit(f"generation {generation}", net, [stage], taught)
    nursery.epochs[Phase.TRAINING_TEACHER] = run
    return net


def _graduated(nursery: Nursery, entrant: Entrant) -> Teacher:
    if entrant.recipe is None:
        assert entrant.ready is not None  # it came in files
        return entrant.ready
    stage = stage_of(entrant.recipe, phase=Phase.TRAINING_TEACHER, stream="teacher", losses=_HARD_LABELS)
    stage = replace(stage, series=entrant.series, keep=entrant.recipe.keep)
    nursery.epochs[stage.name] = nursery.fit(stage.name, entrant.net, [stage])
    return of_model(nursery.model("teacher", entrant.net, entrant.recipe.architecture))
