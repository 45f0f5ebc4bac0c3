"""Which axis of a network's input is which, and how many rows it takes at once."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from distill.teachers.draft import OPTIONS
from stillhouse.spec.refusing import invalid
from stillhouse.spec.teachers import TeacherOptions

Dims = tuple[int | None, ...]
"""Sizes of axes; None: any."""
Layout = Literal["nchw", "nhwc"]
_COLOURS = (1, 3)


def row_of(dims: Dims, options: TeacherOptions) -> tuple[Dims, Layout]:
    """One row as (channels, height, width) or (inputs,), and how the network wants images.

    `dims` are those of its input, rows first, two or four of them. What it leaves open is as the caller states it.
    Raises InvalidData when that contradicts it, or when channels cannot be told from height and width.
    """
    if len(dims) == 2:
        return _agreed((dims[1],), options.shape), "nchw"
    layout = options.preprocessing.layout or _layout(dims)
    own = dims[1:] if layout == "nchw" else (dims[3], dims[1], dims[2])
    return _agreed(own, options.shape), layout


def fixed_size(shape: Dims) -> tuple[int, int] | None:
    """Height and width, when the network takes no others."""
    if len(shape) != 3 or shape[1] is None or shape[2] is None:
        return None
    return shape[1], shape[2]


def in_batches(rows: Tensor, batch: int | None, run: Callable[[Tensor], Tensor]) -> Tensor:
    """`run` over all rows at once, or over as many at a time as it takes; the last are filled up by repeating one."""
    if batch is None or len(rows) == batch:
        return run(rows)
    parts = []
    for part in torch.split(rows, batch):
        lacking = batch - len(part)
        full = part if not lacking else torch.cat([part, part[-1:].expand(lacking, *part.shape[1:])])
        parts.append(run(full)[: len(part)])
    return torch.cat(parts)


def _layout(dims: Dims) -> Layout:
    first, last = dims[1] in _COLOURS, dims[3] in _COLOURS
    if last and not first:
        return "nhwc"
    if first or dims[1] is not None:
        return "nchw"
    detail = "The shape of the network's input does not tell channels from height and width."
    hint = "State preprocessing.layout, nchw or nhwc, and the shape of a row."
    raise invalid(f"{OPTIONS}/preprocessing/layout", "unclear_input", detail, hint)


def _agreed(own: Dims, stated: Sequence[int] | None) -> Dims:
    if stated is None:
        if own[0] is None:
            detail = f"The network does not say how many {'channels' if len(own) == 3 else 'inputs'} a row has."
            raise invalid(f"{OPTIONS}/shape", "unclear_input", detail, "State the shape of a row.")
        return own
    if len(stated) != len(own) or any(a not in (None, b) for a, b in zip(own, stated, strict=True)):
        shown = ["any" if side is None else str(side) for side in own]
        detail = f"shape is {list(stated)}, and a row of the network is [{', '.join(shown)}]."
        raise invalid(f"{OPTIONS}/shape", "shape_misfit", detail, "Leave it out, or state what the file leaves open.")
    return tuple(stated)
