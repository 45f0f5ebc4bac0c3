"""The page on teachers says what the service takes."""

import re
from pathlib import Path
from typing import get_args

import yaml

from stillhouse.spec import JobSpec, Limits, resolve
from stillhouse.spec.teachers import TeacherFormat, TeacherQuery
from tests.spec.test_label_maps import PETS, foreign
from tests.spec.test_resolve import written

PAGE = (Path(__file__).resolve().parents[2] / "docs/teachers.md").read_text()


def test_every_format_and_option_is_named() -> None:
    assert [name for name in get_args(TeacherFormat) if f"`{name}`" not in PAGE] == []
    options = set(TeacherQuery.model_fields) - {"format"}
    assert [name for name in options if f"`{name}`" not in PAGE] == []


def test_the_commands_use_options_there_are() -> None:
    named = re.findall(r" --([a-z]+)", "\n".join(re.findall(r"(?m)^stillhouse .*$", PAGE)))
    assert named
    assert set(named) <= {*TeacherQuery.model_fields, "name"}


def test_the_label_map_leads_from_a_larger_teacher_to_a_small_dataset() -> None:
    (block,) = re.findall(r"(?s)```yaml\n(.*?)```", PAGE)
    given = yaml.safe_load(block)
    known = foreign(("tabby", "tiger cat", "beagle", "pug", "teapot"))
    spec = JobSpec.model_validate(written().model_dump(mode="json") | given)
    assert resolve(spec, PETS, Limits(), teachers=[known]).teacher.label_map == given["teacher"]["label_map"]
