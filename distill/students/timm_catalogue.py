"""Measure every architecture timm names, for a service that must answer without importing torch or timm.

`python -m distill.students.timm_catalogue` writes stillhouse/spec/timm_architectures.json anew; run it after timm was
upgraded. Networks are built on the meta device: shapes without memory, so no weights are made or downloaded. It takes
about half an hour; a test holds a sample of it against timm.
"""

import json
import logging
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import stillhouse.spec

TABLE = Path(stillhouse.spec.__file__).with_name("timm_architectures.json")
COLUMNS = (
    "parameters",
    "per_class",
    "per_channel",
    "buffers",
    "tensors",
    "macs",
    "side",
    "smallest",
    "grid",
    "per_patch",
    "pretrained",
)
_SIDES = (8, 16, 24, 32, 48, 64, 96, 128, 160, 192, 224)


def measured(name: str) -> list[int | None] | None:
    """The row of one architecture, in the order of COLUMNS; None when it is no classifier of plain images."""
    try:
        net = _built(name)
        side = net.pretrained_cfg["input_size"][-1]
        macs = _macs(net, side)
    except Exception:  # noqa: BLE001 - 1,371 files of others' code: whatever cannot be built is not offered
        return None
    if macs is None:
        return None
    fixed = bool(net.pretrained_cfg.get("fixed_input_size"))
    parameters, state = count(net), net.state_dict()
    smallest = side if fixed else _smallest(net, side)
    grid, per_patch = _grid(name, parameters, side) if fixed else (None, 0)
    if grid:
        smallest = grid
    row = {
        "parameters": parameters,
        "per_channel": _per_channel(name, parameters),
        "buffers": sum(value.numel() for value in state.values()) - parameters,
        "tensors": len(state),
        "macs": macs,
        "side": side,
        "smallest": smallest,
        "grid": grid,
        "per_patch": per_patch,
        "pretrained": int(timm.is_model_pretrained(name)),
        "per_class": _per_class(net, parameters),  # last: it changes the network
    }
    return [row[column] for column in COLUMNS]


def count(net: nn.Module) -> int:
    """Weights and biases."""
    return sum(p.numel() for p in net.parameters())


def _built(name: str, **dials: Any) -> Any:
    with torch.device("meta"):
        # Without gradients: the counter of multiply-adds stumbles over parameters that want some.
        return timm.create_model(name, num_classes=1000, **dials).eval().requires_grad_(False)


def _macs(net: nn.Module, side: int) -> int | None:
    """Multiply-adds of one image, or None when the answer is no row of 1000 logits."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        logits = net(torch.zeros(1, 3, side, side, device="meta"))
    if not isinstance(logits, torch.Tensor) or logits.shape != (1, 1000):
        return None
    return int(counter.get_total_flops()) // 2


def _smallest(net: nn.Module, side: int) -> int:
    """The smallest of a few sides that goes through."""
    for tried in _SIDES:
        if tried < side and _takes(net, tried):
            return tried
    return side


def _takes(net: nn.Module, side: int) -> bool:
    try:
        with torch.no_grad():
            return bool(net(torch.zeros(2, 3, side, side, device="meta")).shape == (2, 1000))
    except Exception:  # noqa: BLE001 - each network refuses in its own way
        return False


def _per_channel(name: str, parameters: int) -> int | None:
    """Parameters one more input channel adds; None when the network takes three and no other number."""
    try:
        return (parameters - count(_built(name, in_chans=1))) // 2
    except Exception:  # noqa: BLE001 - as above
        return None


def _per_class(net: Any, parameters: int) -> int:
    with torch.device("meta"):
        net.reset_classifier(10)
    return int((parameters - count(net)) // 990)


def _grid(name: str, parameters: int, side: int) -> tuple[int, int]:
    """Patch side and parameters per patch of a network that can be built for another image; (0, 0): it cannot.

    Believed only when two small builds and the usual one lie on one line.
    """
    try:
        patch = _patch(_built(name))
        found = []
        for patches in (2, 4):
            net = _built(name, img_size=patches * patch)
            if not _takes(net, patches * patch):
                return 0, 0
            found.append(count(net))
    except Exception:  # noqa: BLE001 - as above
        return 0, 0
    per_patch = (found[1] - found[0]) // 12
    straight = found[0] + per_patch * ((side // patch) ** 2 - 4) == parameters and side % patch == 0
    return (patch, per_patch) if straight else (0, 0)


def _patch(net: Any) -> int:
    size = net.patch_embed.patch_size
    height, width = size if isinstance(size, tuple) else (size, size)
    if height != width:
        raise ValueError("patches are no squares")
    return int(height)


def _lines(names: list[str]) -> Iterator[str]:
    for position, name in enumerate(names, start=1):
        row = measured(name)
        print(f"{position}/{len(names)} {name}: {row or 'left out'}", file=sys.stderr)  # noqa: T201
        if row is not None:
            yield f"{json.dumps(name)}: {json.dumps(row, separators=(',', ':'))}"


def table(names: list[str]) -> str:
    """The file's text: a line per architecture."""
    head = f'"timm": {json.dumps(timm.__version__)},\n"columns": {json.dumps(COLUMNS)},\n"architectures": {{\n'
    return "{\n" + head + ",\n".join(_lines(names)) + "\n}\n}\n"


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    TABLE.write_text(table(timm.list_models()), encoding="utf-8")
