"""A teacher the service holds: from its files to a network that answers in the classes of the dataset."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from distill.data import Dataset
from distill.model import WEIGHTS, digest, digest_of
from distill.reporter import Reporter
from distill.teacher import Teacher, of_ours
from distill.teachers import config_of, leads_nowhere_else, load, mapped
from distill.teachers.networks import LIBRARY_ERRORS
from distill.teachers.teacher import Teacher as Foreign
from stillhouse.spec.errors import FieldError, JobFailure
from stillhouse.spec.events import ModelConfig
from stillhouse.spec.teachers import (
    ForeignConfig,
    LabelMap,
    OnnxNet,
    map_of,
    network_in_words,
    teacher_misfits,
    weights_file,
)

_HINT = "Choose another teacher, or train one in the job with teacher.train."
_NUMBERS_AT_ONCE = 2**22  # 16 MB of float32: what goes into a network at once, though images are enlarged before it


def stored(
    folder: Path | None,
    data: Dataset,
    label_map: Mapping[str, str] | None,
    sha256: str | None = None,
    *,
    batch: int,
    reporter: Reporter,
) -> Teacher:
    """The teacher whose files lie in `folder`; what is worth knowing is said to `reporter`. The network is loaded, on
    the data's device, when it is first needed.

    `sha256` is that of its weights, when it is known. Batches of `batch` rows go through it whole. Raises JobFailure
    `teacher_unusable`.
    """
    if folder is None:
        raise _unusable("The spec names a teacher, and its files were not given.")
    try:
        config = config_of(folder)
    except ValueError as error:
        raise _unusable(f"The teacher could not be loaded: {error}.") from error
    _refuse(teacher_misfits(config, data.facts))
    found, wrong = map_of(config, data.facts.classes, label_map)
    _refuse(wrong)
    assert found is not None  # nothing was wrong
    for note in found.notes:
        reporter.say(note)
    return _teacher(config, folder, found, data, sha256, lambda: _loaded(folder, found, data, batch))


def _teacher(
    config: ModelConfig | ForeignConfig,
    folder: Path,
    found: LabelMap,
    data: Dataset,
    sha256: str | None,
    wake: Callable[[], nn.Module],
) -> Teacher:
    file = folder / (WEIGHTS if isinstance(config, ModelConfig) else weights_file(config))
    try:
        sha256, size = sha256 or digest_of(file), file.stat().st_size
    except OSError as error:
        raise _unusable(f"The teacher could not be loaded: {file.name} is missing or cannot be read.") from error
    if isinstance(config, ModelConfig):
        own = of_ours(config, wake, sha256=sha256, size_bytes=size)
        if leads_nowhere_else(found, len(data.facts.classes)):
            return own
        print_of_both = digest(json.dumps(["mapped/1", own.fingerprint, found.to]).encode())
        return replace(own, fingerprint=print_of_both, architecture=None)
    parts = ["foreign/1", sha256, config.model_dump_json(), data.white, found.to]
    return Teacher(
        wake,
        described=network_in_words(config),
        parameters=config.parameters,
        size_bytes=size,
        fingerprint=digest(json.dumps(parts).encode()),
        timing="as it runs" if isinstance(config.network, OnnxNet) else "exported",
    )


def _loaded(folder: Path, found: LabelMap, data: Dataset, batch: int) -> nn.Module:
    """The network; one that somebody brought is tried on rows of the data, as ours are known to take their shape."""
    try:
        net, config = load(folder, white=data.white)
    except ValueError as error:
        raise _unusable(f"The teacher could not be loaded: {error}.") from error
    if isinstance(net, Foreign):
        net.rows_at_once = max(batch, _NUMBERS_AT_ONCE // _numbers_of_a_row(config, data))
    net = mapped(net, found, len(data.facts.classes)).to(data.x.device)
    if not isinstance(config, ModelConfig):
        _try(net, data)
    return net


def _numbers_of_a_row(config: ModelConfig | ForeignConfig, data: Dataset) -> int:
    """Of one row as the network gets it, behind its preprocessing."""
    if isinstance(config, ModelConfig) or len(data.facts.shape) == 1:
        return data.facts.inputs
    height, width = config.preprocessing.size or data.facts.shape[1:]
    return (config.shape[0] or data.facts.shape[0]) * height * width


@torch.no_grad()
def _try(net: nn.Module, data: Dataset) -> None:
    """It was tried on random rows when it was uploaded; these are the ones it will see."""
    try:
        net(data.inputs(data.rows["train"][:2]))
    except LIBRARY_ERRORS as error:
        shape = "×".join(map(str, data.facts.shape))
        raise _unusable(f"The teacher fails on the rows of this dataset, of shape {shape}.") from error


def _refuse(wrong: list[FieldError]) -> None:
    if wrong:
        raise _unusable(wrong[0].detail)


def _unusable(detail: str) -> JobFailure:
    return JobFailure("teacher_unusable", detail, hint=_HINT)
