"""A stored teacher, ready to teach."""

from pathlib import Path

from pydantic import ValidationError
from torch import nn

from distill import model
from distill.teachers import exported, fitting, onnx_graph
from distill.teachers.networks import LIBRARY_ERRORS, build
from distill.teachers.teacher import Teacher
from distill.teachers.tensors import read_safetensors
from stillhouse.spec.errors import StillhouseError
from stillhouse.spec.events import ModelConfig
from stillhouse.spec.limits import Limits
from stillhouse.spec.teachers import ExportedNet, ForeignConfig, OnnxNet, weights_file
from stillhouse.spec.teachers.config import STORED_CONFIG

_NO_LIMITS = Limits(max_teacher_parameters=2**62, max_expanded_bytes=2**62)
"""They were checked when the file came in; an operator may have lowered them since."""


_LIBRARIES = {"huggingface": "transformers (stillhouse[huggingface])", "timm": "timm", "torchvision": "torchvision"}


def load(folder: Path | str, *, white: float = 255.0) -> tuple[nn.Module, ModelConfig | ForeignConfig]:
    """The teacher in `folder`: raw float32 rows [N, C, H, W] or [N, F] of a dataset → logits [N, its own classes].

    The folder holds config.json and the file `weights_file(config)` names. `white` is the brightest value of the
    dataset. The network is on the CPU, in eval mode and frozen: no gradient flows through it. No code in the folder is
    run. Raises ValueError, naming what is wrong, when the files are missing, damaged or do not belong together.
    """
    config = config_of(folder)
    if isinstance(config, ModelConfig):
        return model.load(folder).requires_grad_(False), config
    path = Path(folder) / weights_file(config)
    try:
        return Teacher(_network(path, config), config, white=white), config
    except OSError as error:
        raise ValueError(f"{path.name} is missing or cannot be read") from error
    except StillhouseError as error:
        details = [entry.detail for entry in error.errors] or [error.detail]
        raise ValueError(f"{path.name}: {' '.join(details).rstrip('.')}") from error
    except ImportError as error:
        raise ValueError(
            f"{_LIBRARIES.get(config.network.kind, 'a library')} is not installed on this worker"
        ) from error
    except LIBRARY_ERRORS as error:
        raise ValueError(f"{path.name} and {model.CONFIG} do not belong together") from error


def config_of(folder: Path | str) -> ModelConfig | ForeignConfig:
    """What is written of the teacher in `folder`. Raises ValueError as `load` does."""
    try:
        return STORED_CONFIG.validate_json((Path(folder) / model.CONFIG).read_bytes())
    except OSError as error:
        raise ValueError(f"{model.CONFIG} is missing or cannot be read") from error
    except ValidationError as error:
        raise ValueError(f"{model.CONFIG} is no config of a model: {error.error_count()} fields are wrong") from error


def _network(path: Path, config: ForeignConfig) -> nn.Module:
    net = config.network
    if isinstance(net, OnnxNet):
        return onnx_graph.loaded(path, net, _NO_LIMITS)
    if isinstance(net, ExportedNet):
        return exported.loaded(path, net, _NO_LIMITS)
    network = build(net, config.outputs, config.shape[0] or 3)
    body = network.get_submodule("network") if net.kind == "huggingface" else network
    state, errors = fitting.by_name(read_safetensors(path), body.state_dict())
    if errors:
        raise fitting.refuse(errors, "config.json", "Upload it again.")
    fitting.load(body, state)
    return network
