"""A model of this service, from another installation or an earlier one: the folder of a finished job."""

import shutil
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch import nn

from distill import model
from distill.teachers.package import Package
from distill.teachers.tensors import read_safetensors
from stillhouse.spec.events import ModelConfig
from stillhouse.spec.limits import Limits
from stillhouse.spec.refusing import invalid, too_large
from stillhouse.spec.teachers import TeacherOptions
from stillhouse.spec.teachers.preprocessing import StatedPreprocessing

AT = "/file/members/config.json"


def is_own(config: dict[str, Any]) -> bool:
    """Whether the config is of this service."""
    return str(config.get("format", "")).startswith("stillhouse-")


def read(package: Package, options: TeacherOptions, limits: Limits) -> tuple[nn.Module, ModelConfig]:
    """The network of the folder. Raises InvalidData or TooLarge."""
    _check_options(options)
    config = _config(package.config)
    own = config.architecture
    if reason := own.misfit(config.facts):
        raise invalid(AT, "corrupt_config", f"The network cannot take rows as its config describes them: {reason}.")
    if (size := own.parameters(config.facts)) > limits.max_teacher_parameters:
        detail = f"The network has {size:,} parameters, the limit is {limits.max_teacher_parameters:,}."
        raise too_large(AT, "too_many_parameters", detail, "Upload a smaller teacher.")
    read_safetensors(package.weights[0])  # says what is wrong with a damaged file
    folder = package.weights[0].parent
    (folder / model.CONFIG).write_text(config.model_dump_json(), encoding="utf-8")
    package.weights[0].rename(folder / model.WEIGHTS)
    try:
        return model.load(folder), config
    except ValueError as error:
        code = "weights_not_finite" if "NaN" in str(error) else "corrupt_config"
        detail = f"The folder is no model of this service: {error}."
        raise invalid("/file", code, detail, "Pack config.json and model.safetensors of one job.") from None


def write(package: Package, to: Path) -> None:
    """The stored form: the weights as they are."""
    shutil.copyfile(package.weights[0].parent / model.WEIGHTS, to)


def _config(content: dict[str, Any]) -> ModelConfig:
    try:
        config = ModelConfig.model_validate(content)
        counts = {len(config.mean), len(config.std)}
        if counts != {config.facts.shape[0]} or not 1 <= config.facts.inputs <= 2**31 or min(config.facts.shape) < 1:
            raise ValueError
    except (ValidationError, ValueError, IndexError):
        detail = "config.json is not that of a model of this service, or of a newer version of it."
        raise invalid(AT, "corrupt_config", detail, "Pack the folder as the job left it.") from None
    return config


def _check_options(options: TeacherOptions) -> None:
    """Everything is in the folder's own config."""
    for name, default in TeacherOptions():
        given = getattr(options, name)
        if name != "format" and given not in (default, StatedPreprocessing()):
            detail = f"{name} does nothing for a model of this service: its config says everything."
            raise invalid(f"/options/{name}", "option_does_not_apply", detail, "Leave it out.")
