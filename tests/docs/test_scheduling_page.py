"""The page on turns: its spec is valid, its example is an answer, its numbers and reasons are those of the code."""

import re
from pathlib import Path
from typing import get_args

import yaml

from models.scheduling import Needs, needs_of
from stillhouse.spec.job import JobSpec, priority_number
from stillhouse.spec.limits import Limits
from stillhouse.spec.views import QueuePlace, WaitReason

PAGE = (Path(__file__).resolve().parents[2] / "docs/scheduling.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    return found.group(1)


def test_its_spec_asks_for_what_the_page_says() -> None:
    plain = {"teacher": {"train": {"architecture": {"name": "mlp"}}}, "dataset": {"builtin": "digits"}}
    spec = JobSpec.model_validate(plain | {"student": {"name": "mlp"}} | yaml.safe_load(block("yaml")))
    assert needs_of(spec) == Needs(cuda=True, memory_bytes=16_000_000_000)


def test_its_example_is_an_answer() -> None:
    assert QueuePlace.model_validate_json(block("json")).detail


def test_its_numbers_are_those_of_the_code() -> None:
    low, normal, high = (priority_number(word) for word in ("low", "normal", "high"))
    assert f"`low` is {low}, `normal` {normal}, `high` {high}" in PAGE
    for name in ("max_queued_jobs", "max_running_jobs"):
        assert f"`STILLHOUSE_LIMITS__{name.upper()}` | {Limits.model_fields[name].default} |" in PAGE


def test_it_explains_each_reason() -> None:
    assert set(re.findall(r"(?m)^\| `([a-z_]+)` \|", PAGE)) == set(get_args(WaitReason))
