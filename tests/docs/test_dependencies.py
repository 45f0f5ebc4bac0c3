"""Every dependency is pinned: what CI tests, `make audit` asks about, and users install is one set of versions."""

import re
import tomllib
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PINNED = {
    canonicalize_name(line.partition("==")[0]): line.partition("==")[2]
    for line in (ROOT / "constraints.txt").read_text().splitlines()
}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def requirements() -> list[Requirement]:
    extras = PROJECT["optional-dependencies"].values()
    lines = [*PROJECT["dependencies"], *(line for extra in extras for line in extra)]
    return [found for line in lines if (found := Requirement(line)).name != PROJECT["name"]]


def test_constraints_are_exact_versions_and_nothing_else() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    # No hosts, no paths, no direct references: a version, and a local label such as +cpu never.
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9_.\-]+==[0-9][A-Za-z0-9.]*", line)] == []
    assert len(PINNED) == len(lines) > 50


def test_every_requirement_is_bounded_and_pinned_within_its_bounds() -> None:
    for requirement in requirements():
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue
        name = canonicalize_name(requirement.name)
        assert any(s.operator in ("<", "==", "~=") for s in requirement.specifier), f"{name} has no upper bound"
        assert name in PINNED, name
        assert requirement.specifier.contains(PINNED[name]), name


def test_what_the_requirements_need_in_turn_is_pinned_too() -> None:
    waiting, seen = [canonicalize_name(found.name) for found in requirements()], set[str]()
    while waiting:
        name = waiting.pop()
        if name in seen or name not in PINNED:
            continue
        seen.add(name)
        for line in distribution(name).requires or ():
            found = Requirement(line)
            if found.marker is None or found.marker.evaluate({"extra": ""}):
                assert canonicalize_name(found.name) in PINNED, f"{name} needs {found.name}, which is not pinned"
                waiting.append(canonicalize_name(found.name))
    assert len(seen) > 40
