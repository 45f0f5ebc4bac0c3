"""Libraries a network can come from, by name. Closed: nothing is imported, downloaded or run that a file names."""

import copy
import difflib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from stillhouse.spec.students.timm import timm_architectures
from stillhouse.spec.teachers import HuggingFaceNet, TimmNet, TorchvisionNet

WeightedNet = HuggingFaceNet | TimmNet | TorchvisionNet
LIBRARY_ERRORS = (
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    IndexError,
    RuntimeError,
    AssertionError,
    ArithmeticError,
    ImportError,
    RecursionError,
)
"""What libraries raise on arguments they cannot take."""
_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY")


class TooBig(Exception):
    """A network has more parameters than allowed; raised while it is built, before they take memory."""


class Logits(nn.Module):
    """A network whose answer is an object with a field `logits`."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Its logits alone."""
        logits: Tensor = self.network(pixel_values=x).logits
        return logits


def build(net: WeightedNet, classes: int, channels: int) -> nn.Module:
    """The network with random weights, on the CPU, in eval mode: [N, C, H, W] → logits [N, classes].

    Raises ValueError, KeyError, TypeError, RuntimeError or AssertionError, whatever the library says of its arguments.
    """
    # Some networks compute buffers that are not saved, which a network on the meta device would never get.
    with torch.device("cpu"), torch.random.fork_rng(devices=[]):
        if isinstance(net, TimmNet):
            return timm_net(net, classes, channels).eval()
        if isinstance(net, TorchvisionNet):
            return torchvision_net(net.architecture, classes).eval()
        return Logits(transformers_net(net.config)).eval()


def timm_net(net: TimmNet, classes: int | None, channels: int | None) -> nn.Module:
    """One of timm's; None: its usual classes and channels. Nothing is downloaded."""
    import timm

    more: dict[str, Any] = dict(net.arguments)
    if net.size is not None:
        more["img_size"] = net.size
    counts = {"num_classes": classes, "in_chans": channels}
    more |= {name: count for name, count in counts.items() if count is not None}
    network: nn.Module = timm.create_model(net.architecture, pretrained=False, **more)
    return network


def torchvision_net(architecture: str, classes: int | None) -> nn.Module:
    """One of torchvision's."""
    from torchvision import models

    more: dict[str, Any] = {} if classes is None else {"num_classes": classes}
    if architecture in ("googlenet", "inception_v3"):
        # Drawing their weights the old way takes a minute; without the helpers for training they are what is evaluated.
        more |= {"init_weights": False, "aux_logits": False}
    network: nn.Module = models.get_model(architecture, weights=None, **more)
    return network


def transformers_net(config: dict[str, Any]) -> nn.Module:
    """An image classifier of transformers, from a config that `huggingface.checked_config` has passed."""
    kind = transformers_class(config)
    # The library changes what is inside of what it is given.
    made = kind.config_class.from_dict(copy.deepcopy(config))
    network: nn.Module = kind._from_config(made, dtype=torch.float32)
    return network


def transformers_class(config: dict[str, Any]) -> Any:
    """The class of the library that a checked config names. Raises ImportError when the library is not installed."""
    for name in _OFFLINE:
        os.environ[name] = "1"
    import transformers

    log: Any = transformers.logging
    log.set_verbosity_error()
    log.disable_progress_bar()
    return getattr(transformers, config["architectures"][0])


def torchvision_names() -> list[str]:
    """All classifiers of torchvision."""
    from torchvision import models

    names: list[str] = models.list_models(module=models)
    return names


def unknown(library: str, name: str) -> str | None:
    """Why `library` has no such network, with close names; None when it has."""
    names = list(timm_architectures()) if library == "timm" else torchvision_names()
    if name in names:
        return None
    close = difflib.get_close_matches(name.partition(".")[0], names, n=3, cutoff=0.5)
    hint = f"; close names: {', '.join(f'{library}/{other}' for other in close)}" if close else ""
    return f"{library} has no classifier {name!r}{hint}."


@contextmanager
def counted(most: int, tensors: int) -> Iterator[None]:
    """Whatever is built inside is built on the meta device; raises TooBig beyond `most` numbers or so many tensors."""
    numbers = parameters = 0

    def count(_module: nn.Module, _name: str, parameter: Tensor | None) -> None:
        nonlocal numbers, parameters
        if parameter is not None:
            numbers, parameters = numbers + parameter.numel(), parameters + 1
        if numbers > most or parameters > tensors:
            raise TooBig

    hook = nn.modules.module.register_module_parameter_registration_hook(count)
    try:
        with torch.device("meta"):
            yield
    finally:
        hook.remove()
