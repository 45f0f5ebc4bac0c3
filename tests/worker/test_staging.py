"""How many threads a trainer gets: a function of the spec and the machine."""

import os

from core.settings import Settings
from stillhouse.spec import DataFacts, JobSpec, Limits, resolve
from stillhouse.spec.teachers import ForeignConfig, TimmNet
from tests.worker.service import spec
from worker.staging import threads_for

SMALL = DataFacts(
    task="image-classification",
    shape=(1, 8, 8),
    dtype="uint8",
    classes=tuple("0123456789"),
    rows={"train": 1000, "validation": 0, "test": 100},
)
LARGE = SMALL.model_copy(update={"shape": (3, 64, 64)})


def job(facts: DataFacts, **changes: object) -> JobSpec:
    return resolve(JobSpec.model_validate(spec(**changes)), facts, Limits())


def test_small_steps_are_not_shared_among_cores() -> None:
    assert threads_for(job(SMALL), SMALL, Settings()) == 1


def test_large_steps_get_every_core_whoever_needs_them() -> None:
    cores = len(os.sched_getaffinity(0))
    heavy = {"name": "resnet", "depth": 20}
    assert threads_for(job(LARGE, student=heavy), LARGE, Settings()) == cores
    assert threads_for(job(LARGE, teacher={"train": {"architecture": heavy}}), LARGE, Settings()) == cores


def test_a_large_teacher_that_is_loaded_gets_every_core_too() -> None:
    large = ForeignConfig(
        network=TimmNet(architecture="resnet18"),
        task="image-classification",
        shape=(1, None, None),
        outputs=10,
        parameters=11_000_000,
    )
    cores = len(os.sched_getaffinity(0))
    asked = job(SMALL, teacher={"model": "mdl_" + "0" * 26})
    assert threads_for(asked, SMALL, Settings(), teachers=[large]) == cores
    small = large.model_copy(update={"parameters": 1_000})
    assert threads_for(asked, SMALL, Settings(), teachers=[small]) == 1


def test_the_operator_has_the_last_word() -> None:
    assert threads_for(job(SMALL), SMALL, Settings(trainer_threads=7)) == 7
