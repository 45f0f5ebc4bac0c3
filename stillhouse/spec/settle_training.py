"""Every `auto` of how weights are fitted: a part of `resolve`."""

import math
from typing import TypeVar

from stillhouse.spec.base import AUTO
from stillhouse.spec.limits import Limits
from stillhouse.spec.students import Architecture, Cnn, Mlp, Timm
from stillhouse.spec.training import Training

T = TypeVar("T", bound=Training)

_TARGET_STEPS = 3_000
_SGD, _SGD_PRETRAINED = 0.05, 0.01


def settle_training(training: T, nets: tuple[Architecture, ...], rows: int, limits: Limits, *, seed: int) -> T:
    """`rows` are those it trains on."""
    rows = max(1, rows)
    usual = min(128 if rows >= 1280 else 32, limits.max_batch_size)
    batch = usual if isinstance(training.batch_size, str) else training.batch_size
    steps = math.ceil(rows / batch)
    defaults: dict[str, object] = {
        "epochs": min(200, max(10, round(_TARGET_STEPS / steps)), limits.max_epochs),
        "batch_size": batch,
        "learning_rate": _learning_rate(training, nets),
        "weight_decay": {"adamw": 0.01, "adam": 0.0, "sgd": 5e-4}[training.optimizer],
        "momentum": 0.9 if training.optimizer == "sgd" else 0.0,
        "precision": "fp32",
        "seed": seed,
    }
    return training.model_copy(update={k: v for k, v in defaults.items() if getattr(training, k) == AUTO})


def _learning_rate(training: Training, nets: tuple[Architecture, ...]) -> float:
    """The step size the most delicate of the networks bears."""
    if training.optimizer == "sgd":
        return min(_SGD_PRETRAINED if isinstance(net, Timm) and net.pretrained else _SGD for net in nets)
    return min(_adam_rate(net) for net in nets)


def _adam_rate(net: Architecture) -> float:
    if isinstance(net, Timm):
        # Transformers diverge at what batch norm bears, and published weights are soon forgotten.
        return 0.0003 if net.pretrained else 0.001
    if isinstance(net, Mlp):
        return 0.003
    # Small networks with batch norm bear more, and with less they are not done in the usual number of steps: on digits
    # a cnn of 8-16 channels made 23 mistakes at 0.002 and 5 at 0.01 when it was taught, 17 and 10 when it was not.
    return 0.01 if isinstance(net, Cnn) else 0.005
