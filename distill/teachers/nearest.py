"""Which architecture a set of weights most likely belongs to."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from distill.teachers.networks import LIBRARY_ERRORS, timm_net, torchvision_names, torchvision_net
from stillhouse.spec.students.timm import timm_architectures
from stillhouse.spec.teachers import TimmNet

_BUILT = 8
"""Candidates of timm that are built and compared name by name: each takes a tenth of a second or more."""
_ALIKE = 0.5


@dataclass(frozen=True)
class Likeness:
    """How much of a file an architecture explains."""

    name: str
    share: float
    """Tensors equal in name and shape ÷ all names of both; the classifier's number of classes is not looked at."""


def nearest(state: Mapping[str, Tensor]) -> Likeness | None:
    """The architecture of timm or torchvision whose tensors are most like these, None when none is half alike."""
    best = Likeness("", 0.0)
    for name, build in (*_of_timm(state), *_of_torchvision()):
        best = max(best, _likeness(name, build, state), key=lambda likeness: likeness.share)
        if best.share == 1:
            break
    return best if best.share >= _ALIKE else None


def _likeness(name: str, build: Callable[[], nn.Module], state: Mapping[str, Tensor]) -> Likeness:
    try:
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            own = build().state_dict()
    except LIBRARY_ERRORS:
        return Likeness(name, 0.0)
    same = sum(key in own and _alike(own[key], value) for key, value in state.items())
    return Likeness(name, same / len(own.keys() | state.keys()))


def _alike(own: Tensor, given: Tensor) -> bool:
    """Equal shapes but for the first axis, which counts classes in a classifier."""
    return own.shape[1:] == given.shape[1:] and own.dim() == given.dim()


def _of_timm(state: Mapping[str, Tensor]) -> list[tuple[str, Callable[[], nn.Module]]]:
    numbers, tensors = sum(value.numel() for value in state.values()), len(state)

    def distance(name: str) -> float:
        facts = timm_architectures()[name]
        size = max(facts.parameters, 1)
        return abs(facts.tensors - tensors) / max(tensors, 1) + abs(size - numbers) / max(size, numbers, 1)

    closest = sorted(timm_architectures(), key=distance)[:_BUILT]
    return [(f"timm/{name}", lambda name=name: timm_net(TimmNet(architecture=name), None, None)) for name in closest]  # type: ignore[misc]


def _of_torchvision() -> list[tuple[str, Callable[[], nn.Module]]]:
    return [(f"torchvision/{name}", lambda name=name: torchvision_net(name, None)) for name in torchvision_names()]  # type: ignore[misc]
