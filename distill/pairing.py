"""Which layer of the student learns from which layer of the teacher: as the spec names them, or by stage and shape."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.pooling import _AdaptiveAvgPoolNd, _AdaptiveMaxPoolNd, _AvgPoolNd, _MaxPoolNd

from distill.losses import LOSSES
from distill.losses.registry import AutoLayers, Term
from distill.taps import Pair, Point, Role, check_path, mismatch, outputs, tapped
from stillhouse.spec.losses import Layered, Loss

_POOLS = (_MaxPoolNd, _AvgPoolNd, _AdaptiveAvgPoolNd, _AdaptiveMaxPoolNd)
_LEAVE_OUT = "Leave `layers` out to have them chosen, or name others."


@dataclass(frozen=True)
class Outline:
    """The layers of a network that say something of it, from input to output."""

    stages: tuple[Point, ...]
    """Maps (C, H, W): the last at each resolution, from large to small."""
    hidden: tuple[Point, ...]
    """Vectors (F,): the last after each layer with weights."""
    penultimate: Point | None
    """What the last layer with weights reads, or the nearest before it; None when it reads the input itself."""


@torch.no_grad()
def pair_layers(
    losses: Sequence[Loss], student: nn.Module, teacher: nn.Module, x: Tensor
) -> dict[str, tuple[Pair, ...]]:
    """The pairs of each loss that looks at layers, by its kind, from shallow to deep. Nothing is trained or drawn.

    `x` are a few raw rows [B, …] as both networks take them. Raises JobFailure `layer_unknown` or `layer_mismatch`,
    naming the loss, the layer and a way out.
    """
    layered = [loss for loss in losses if isinstance(loss, Layered)]
    if not layered:
        return {}
    here, there = _looked_over(student, x), _looked_over(teacher, x)
    out: dict[str, tuple[Pair, ...]] = {}
    for loss in layered:
        term = LOSSES[loss.kind]
        if isinstance(loss.layers, str):
            pairs = _chosen(term, loss.kind, outline(here), outline(there))
        else:
            pairs = tuple(
                Pair(
                    _named(student, named.student, here, x, "student", loss.kind),
                    _named(teacher, named.teacher, there, x, "teacher", loss.kind),
                )
                for named in loss.layers
            )
        for pair in pairs:
            _check(term, loss.kind, pair)
        out[loss.kind] = pairs
    return out


def sentence(kind: str, pairs: Sequence[Pair]) -> str:
    """For the log: which layers are compared."""
    shown = (
        f"{p.student.path} {list(p.student.shape)} with the teacher's {p.teacher.path} {list(p.teacher.shape)}"
        for p in pairs
    )
    return f"The {kind} loss compares {', '.join(shown)}."


@dataclass(frozen=True)
class _Seen:
    """A layer that ran."""

    point: Point
    depth: int
    """Layers with weights that had run by then, itself included."""
    passive: bool
    """It drops or pools: the layer before it says as much."""


def _looked_over(net: nn.Module, x: Tensor) -> list[_Seen]:
    """Every layer that gave a tensor, in the order they ended, each once: with its last call."""
    seen: dict[str, _Seen] = {}
    depth = 0

    def note(path: str, module: nn.Module, out: Any) -> None:
        nonlocal depth
        # The weights of a layer proper; those of norms have one dimension.
        depth += any(p.dim() > 1 for p in module.parameters(recurse=False))
        if isinstance(out, Tensor):
            seen.pop(path, None)
            passive = isinstance(module, (*_POOLS, _DropoutNd))
            seen[path] = _Seen(Point(path, tuple(out.shape[1:])), depth, passive)

    training = net.training
    net.eval()
    with tapped(net, [name for name, _ in net.named_modules() if name], note):
        net(x)
    net.train(training)
    return list(seen.values())


def outline(seen: list[_Seen]) -> Outline:
    """The stages of a network, its hidden vectors and its penultimate layer."""
    depth = max((layer.depth for layer in seen), default=0)
    between = [layer for layer in seen if 0 < layer.depth < depth and not layer.passive]
    stages: list[Point] = []
    for layer in reversed(between):
        shape = layer.point.shape
        # From the end, so that small maps on the way (squeeze and excitation) are no stages.
        if len(shape) == 3 and (not stages or _pixels(shape) > _pixels(stages[-1].shape)):
            stages.append(layer.point)
    vectors = {layer.depth: layer.point for layer in between if len(layer.point.shape) == 1}
    hidden = tuple(vectors.values())
    last = [layer.point for layer in between if len(layer.point.shape) in (1, 3)]
    return Outline(tuple(reversed(stages)), hidden, last[-1] if last else None)


def _chosen(term: Term, kind: str, student: Outline, teacher: Outline) -> tuple[Pair, ...]:
    auto = term.auto_layers
    assert auto is not None
    if student.penultimate is None or teacher.penultimate is None:
        which = "student" if student.penultimate is None else "teacher"
        raise mismatch(
            f"The {kind} loss compares hidden layers, and the {which} has none.",
            f"Give the {which} a hidden layer, or take a loss on outputs, such as kd.",
        )
    last = Pair(student.penultimate, teacher.penultimate)
    if auto == "penultimate":
        return (last,)
    return _of_stages(auto, student, teacher, last)


def _of_stages(auto: AutoLayers, student: Outline, teacher: Outline, last: Pair) -> tuple[Pair, ...]:
    if student.stages and teacher.stages:
        # From the end: the resolutions may differ, the last stage is the last.
        pairs = [Pair(a, b) for a, b in zip(student.stages[::-1], teacher.stages[::-1], strict=False)][::-1]
    elif student.stages or teacher.stages:
        pairs = [last]
    else:
        pairs = _by_depth(student.hidden, teacher.hidden)
    if auto == "middle stage":
        return (pairs[len(pairs) // 2],)
    alike = len(last.student.shape) == len(last.teacher.shape)
    if auto == "stages and penultimate" and last not in pairs and alike:
        pairs.append(last)
    return tuple(pairs)


def _by_depth(student: Sequence[Point], teacher: Sequence[Point]) -> list[Pair]:
    """As many pairs as the shallower has layers, at equal shares of the depth; the last with the last."""
    count = min(len(student), len(teacher))

    def at(points: Sequence[Point], k: int) -> Point:
        return points[-(-k * len(points) // count) - 1]

    return [Pair(at(student, k), at(teacher, k)) for k in range(1, count + 1)]


def _named(net: nn.Module, path: str, seen: list[_Seen], x: Tensor, role: Role, kind: str) -> Point:
    check_path(net, path, role=role, loss=kind)
    training = net.training
    outputs(net.eval(), x, [path])  # refuses what is no tensor, or is overwritten
    net.train(training)
    layer = next(layer for layer in seen if layer.point.path == path)
    if role == "student" and layer.depth == 0:
        raise mismatch(
            f"The {kind} loss names the student's layer {path!r}, and no weights come before it: nothing would learn.",
            _LEAVE_OUT,
        )
    return layer.point


def _check(term: Term, kind: str, pair: Pair) -> None:
    """Raise JobFailure `layer_mismatch` when the loss cannot compare these two."""
    shapes = (pair.student.shape, pair.teacher.shape)
    shown = (
        f"the student's {pair.student.path} gives {list(shapes[0])} for a row, "
        f"the teacher's {pair.teacher.path} {list(shapes[1])}"
    )
    if term.needs == "maps" and any(len(shape) != 3 for shape in shapes):
        raise mismatch(
            f"The {kind} loss compares maps [C, H, W], and {shown}.",
            "Name convolutional layers of both, or take fitnet or a loss on relations, such as similarity.",
        )
    if term.needs == "alike" and (len(shapes[0]) != len(shapes[1]) or len(shapes[0]) not in (1, 3)):
        raise mismatch(
            f"The {kind} loss compares two maps [C, H, W] or two vectors [F], and {shown}.",
            f"{_LEAVE_OUT} A loss on relations, such as similarity, compares any two layers.",
        )


def _pixels(shape: tuple[int, ...]) -> int:
    return shape[1] * shape[2]
