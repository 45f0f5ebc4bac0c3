"""A network and its files: config.json says how to build it, model.safetensors holds its weights."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from distill.data import Statistics
from distill.students import build, channels_last
from stillhouse.spec import DataFacts
from stillhouse.spec.events import ModelConfig
from stillhouse.spec.students import Architecture

WEIGHTS, CONFIG = "model.safetensors", "config.json"


@dataclass(frozen=True)
class Model:
    """A network that is trained, with everything its files need."""

    role: Literal["teacher", "student", "baseline"]
    net: nn.Module
    config: ModelConfig
    weights: bytes
    """Its model.safetensors."""

    @property
    def sha256(self) -> str:
        """Digest of its model.safetensors."""
        return digest(self.weights)


def load(folder: Path | str) -> nn.Module:
    """The network in `folder`, on the CPU, in eval mode: raw float32 rows [N, …] → logits [N, classes].

    The folder holds model.safetensors and config.json, as a finished job leaves them. No code in it is run.
    Raises ValueError, naming what is wrong, when the files are missing, damaged or do not belong together.
    """
    return load_with_config(folder)[0]


def load_with_config(folder: Path | str) -> tuple[nn.Module, ModelConfig]:
    """`load`, and the config beside it."""
    try:
        config = ModelConfig.model_validate_json((Path(folder) / CONFIG).read_bytes())
        weights = load_file(Path(folder) / WEIGHTS)
    except OSError as error:
        raise ValueError(f"the folder needs {WEIGHTS} and {CONFIG}, and one of them cannot be read") from error
    except ValidationError as error:
        raise ValueError(f"{CONFIG} is not the config of a model: {error.error_count()} fields are wrong") from error
    except SafetensorError as error:
        raise ValueError(f"{WEIGHTS} is not a whole safetensors file") from error
    with torch.device("meta"):  # no memory and no random numbers for weights about to be replaced
        net = build(config.architecture, config.facts, config.mean, config.std)
    _check(net, weights)
    net.load_state_dict({name: _copy(value) for name, value in weights.items()}, assign=True)
    return channels_last(net).eval(), config


def trained_model(
    role: Literal["teacher", "student", "baseline"],
    net: nn.Module,
    architecture: Architecture,
    facts: DataFacts,
    statistics: Statistics,
) -> Model:
    """A network trained in this job, with its config."""
    config = ModelConfig(
        architecture=architecture,
        facts=facts,
        mean=statistics.mean,
        std=statistics.std,
        parameters=sum(p.numel() for p in net.parameters()),
        preprocessing=_preprocessing(facts, statistics),
    )
    return Model(role, net, config, weight_bytes(net))


def weight_bytes(net: nn.Module) -> bytes:
    """The safetensors file of `net`: the same weights give the same bytes."""
    state: dict[str, Tensor] = {name: value.detach().cpu().contiguous() for name, value in net.state_dict().items()}
    return save(state, metadata={"format": "pt"})


def digest(content: bytes) -> str:
    """SHA-256 as 64 hex digits."""
    return hashlib.sha256(content).hexdigest()


def digest_of(path: Path) -> str:
    """SHA-256 of a file as 64 hex digits, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check(net: nn.Module, weights: dict[str, Tensor]) -> None:
    expected = net.state_dict()
    if odd := sorted(expected.keys() ^ weights.keys()):
        raise ValueError(f"{WEIGHTS} and {CONFIG} do not belong together: tensor {odd[0]!r} is in one of them only")
    for name, value in weights.items():
        if value.shape != expected[name].shape or value.dtype != expected[name].dtype:
            wanted = f"{expected[name].dtype} {list(expected[name].shape)}"
            raise ValueError(f"tensor {name!r} is {value.dtype} {list(value.shape)}, the config says {wanted}")
        if value.is_floating_point() and value.numel() and not _finite(value):
            raise ValueError(f"tensor {name!r} holds NaN or infinity")


def _copy(value: Tensor) -> Tensor:
    """The file is mapped, and a copy outlives it: at once in the order `channels_last` would make another for."""
    return value.clone(memory_format=torch.channels_last if value.ndim == 4 else torch.contiguous_format)


def _finite(value: Tensor) -> bool:
    """One pass, and no tensor of answers: both ends are NaN where anything is."""
    return all(bool(end.isfinite()) for end in value.aminmax())


def _preprocessing(facts: DataFacts, statistics: Statistics) -> str:
    if len(facts.shape) == 3:
        return (
            f"Feed raw pixels as float32 of shape (N, {', '.join(map(str, facts.shape))}), in the range of the "
            f"training images: {statistics.low:g} to {statistics.high:g}. Do not scale them: the first layer subtracts "
            "`mean` and divides by `std`, per channel."
        )
    return (
        f"Feed raw values as float32 of shape (N, {facts.inputs}), columns in the order of `facts.features`; a "
        "categorical column is one 0/1 input per category, in the order listed. Do not scale them: the first layer "
        "subtracts `mean` and divides by `std`, per input."
    )
