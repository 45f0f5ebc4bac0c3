"""What the pages say is what the code does."""

import re
from pathlib import Path

import yaml

from docs.generate import reference
from stillhouse.spec import JobSpec

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


def test_the_reference_lists_what_the_code_has() -> None:
    assert (ROOT / "docs/reference.md").read_text() == reference(), "run `make docs`"


def test_the_readme_is_short_and_starts_with_a_command() -> None:
    lines = README.splitlines()
    assert len(lines) <= 150
    assert any(line.strip() == "make demo" for line in lines[:25])


def test_the_readme_says_how_a_spec_names_each_upload() -> None:
    said = re.findall(r"# then +(\w+: .*)", README)
    assert [line.split(":")[0] for line in said] == ["dataset", "teacher"]
    spec = yaml.safe_load(re.search(r"(?s)```yaml\n(.*?)```", README).group(1))  # type: ignore[union-attr]
    for line in said:
        JobSpec.model_validate(spec | yaml.safe_load(line.replace("…", "0" * 26)))


def test_every_make_target_the_readme_names_exists() -> None:
    targets = set(re.findall(r"(?m)^([a-z-]+):", (ROOT / "Makefile").read_text()))
    named = set(re.findall(r"make ([a-z][a-z-]*)", README))
    assert named
    assert named <= targets, named - targets


def test_every_path_of_the_readme_exists() -> None:
    tree = re.search(r"(?s)```text\n(stillhouse/ .*?)```", README)
    assert tree is not None
    paths, parents = [], {}
    for line in tree.group(1).splitlines():
        indent, name = re.match(r"( *)(\S+)", line).groups()  # type: ignore[union-attr]
        parents[len(indent)] = name
        above = [parents[level] for level in sorted(parents) if level < len(indent)] if indent else []
        paths.append("".join([*above, name]))
    assert len(paths) > 15
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_every_link_of_a_page_leads_somewhere() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "benchmarks").glob("*.md")]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), (page.name, target)
