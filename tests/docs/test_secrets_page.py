"""The page on secrets: its example is a spec, its numbers and routes are those of the code."""

import re
from pathlib import Path

import yaml

from stillhouse.spec.errors import FAILURE_CODES
from stillhouse.spec.secret import MAX_SECRET_CHARACTERS, MAX_SECRETS
from stillhouse.spec.students import Timm

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/secrets.md").read_text(encoding="utf-8")


def test_its_example_is_a_student() -> None:
    found = re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    student = yaml.safe_load(found.group(1))["student"]
    student |= {"name": "timm", "architecture": student["name"].removeprefix("timm/")}
    made = Timm.model_validate(student)
    assert made.hub_token is not None
    assert made.hub_token.secret == "hub"


def test_its_numbers_and_names_are_those_of_the_code() -> None:
    assert f"1 to {MAX_SECRET_CHARACTERS:,} printable" in PAGE
    assert f"has {MAX_SECRETS} secrets at most" in PAGE
    assert "secret_unavailable" in FAILURE_CODES
    reference = (ROOT / "docs/reference.md").read_text(encoding="utf-8")
    for route in ("PUT /v1/secrets/{name}", "GET /v1/secrets", "DELETE /v1/secrets/{name}"):
        assert f"`{route}`" in reference
        assert route.replace("{name}", "hub") in PAGE
