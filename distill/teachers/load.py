"""A stored teacher, ready to teach."""

from pathlib import Path

from pydantic import ValidationError
from torch import nn

from distill import model
from stillhouse.spec.events import ModelConfig
from stillhouse.spec.teachers import ForeignConfig
from stillhouse.spec.teachers.config import STORED_CONFIG


def load(folder: Path | str, *, white: float = 255.0) -> tuple[nn.Module, ModelConfig | ForeignConfig]:
    """The teacher in `folder`: raw float32 rows [N, C, H, W] or [N, F] of a dataset → logits [N, its own classes].

    The folder holds config.json and the file `weights_file(config)` names. `white` is the brightest value of the
    dataset. The network is on the CPU, in eval mode and frozen: no gradient flows through it. No code in the folder is
    run. Raises ValueError, naming what is wrong, when the files are missing, damaged or do not belong together.
    """
    try:
        config = STORED_CONFIG.validate_json((Path(folder) / model.CONFIG).read_bytes())
    except OSError as error:
        raise ValueError(f"{model.CONFIG} is missing or cannot be read") from error
    except ValidationError as error:
        raise ValueError(f"{model.CONFIG} is no config of a model: {error.error_count()} fields are wrong") from error
    if isinstance(config, ModelConfig):
        return model.load(folder).requires_grad_(False), config
    raise ValueError(f"networks of kind {config.network.kind} are not read")
