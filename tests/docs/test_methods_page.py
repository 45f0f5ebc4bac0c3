"""The examples of the page on methods are specs that resolve."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from stillhouse.spec import LOSSES, JobSpec, Limits, resolve
from tests.spec.test_resolve import DIGITS

PAGE = (Path(__file__).resolve().parents[2] / "docs/methods.md").read_text()
BLOCKS = re.findall(r"(?s)```yaml\n(.*?)```", PAGE)
REST: dict[str, Any] = {
    "teacher": {"train": {"architecture": {"name": "cnn"}}},
    "dataset": {"builtin": "digits"},
    "student": {"name": "cnn", "channels": [4, 8]},
}


@pytest.mark.parametrize("block", BLOCKS)
def test_each_block_is_a_spec_or_fits_into_one(block: str) -> None:
    given = yaml.safe_load(block)
    resolve(JobSpec.model_validate(REST | given), DIGITS, Limits())


def test_the_page_names_every_loss() -> None:
    assert len(BLOCKS) > 5
    assert [kind for kind in LOSSES if f"`{kind}`" not in PAGE] == []
