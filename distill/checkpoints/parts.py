"""The moving parts of training as tensors by name, and back: modules, optimizers, streams of random numbers.

What is read back lands in the memory that is there, in its layout: the fused optimizers walk weights and moments side
by side, and would pair the wrong numbers were one of them channels-last and the other not.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class Unfit(Exception):
    """What was read back belongs to other networks."""


def contents(module: nn.Module) -> dict[str, Tensor]:
    """Every parameter and buffer, also those that no file of weights holds."""
    named = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
    return {name: value.detach() for name, value in named}


@torch.no_grad()
def pour(tensors: Mapping[str, Tensor], module: nn.Module) -> None:
    """Put `contents` back. Raises Unfit, and then nothing has changed."""
    own = contents(module)
    if _outline(own) != _outline(tensors):
        raise Unfit
    for name, value in own.items():
        value.copy_(tensors[name])


def moments(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What an optimizer remembers, by the place of the parameter and the name of the moment."""
    slots = optimizer.state_dict()["state"].items()
    return {f"{at}/{name}": value for at, slot in slots for name, value in slot.items() if isinstance(value, Tensor)}


def remember(tensors: Mapping[str, Tensor], optimizer: torch.optim.Optimizer) -> None:
    """Put `moments` back. Raises Unfit."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    slots: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        place, _, name = key.partition("/")
        if not place.isdecimal() or int(place) >= len(parameters):
            raise Unfit
        parameter = parameters[int(place)]
        if value.shape not in (parameter.shape, torch.Size()):
            raise Unfit
        alike = parameter if value.shape == parameter.shape else value
        room = torch.empty_like(alike, dtype=value.dtype, device=parameter.device)
        slots.setdefault(int(place), {})[name] = room.copy_(value)
    optimizer.load_state_dict({"state": slots, "param_groups": optimizer.state_dict()["param_groups"]})


def streams(device: torch.device) -> dict[str, Tensor]:
    """Where torch's streams of random numbers stand: uint8."""
    found = {"cpu": torch.get_rng_state()}
    return found | ({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def wind(tensors: Mapping[str, Tensor], device: torch.device) -> None:
    """Set the streams where they stood. A stream that is not here is left out: another device has its own."""
    torch.set_rng_state(tensors["cpu"].clone())
    if device.type == "cuda" and "cuda" in tensors:
        torch.cuda.set_rng_state(tensors["cuda"].clone(), device)


def _outline(tensors: Mapping[str, Tensor]) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (value.shape, value.dtype) for name, value in tensors.items()}
