"""What is run for every change and once a week."""

from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]


def test_every_change_is_tested_and_its_pinned_versions_are_audited() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    commands = [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]
    assert commands == ["bash .ci/run", "make audit"]
    assert (ROOT / ".ci/run").is_file()
    assert "\naudit:" in (ROOT / "Makefile").read_text()
