"""Features brought to one form: float32 or wider, maps of one size, rows as vectors."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill.losses.softened import widen


def as_map(features: Tensor) -> Tensor:
    """[B, C, H, W] as it is, vectors [B, C] as maps of one pixel [B, C, 1, 1]; float32 or wider."""
    wide = widen(features)
    return wide if wide.dim() == 4 else wide[:, :, None, None]


def as_rows(features: Tensor) -> Tensor:
    """[B, …] → [B, F], float32 or wider."""
    return widen(features).flatten(1)


def resized(maps: Tensor, height: int, width: int) -> Tensor:
    """[B, C, H, W] → [B, C, height, width], each pixel the mean of those it covers (adaptive average pooling).

    As two products of matrices: the gradient of torch's own pooling is not deterministic on CUDA.
    """
    if maps.shape[2:] == (height, width):
        return maps
    rows, columns = _shares(maps.shape[2], height), _shares(maps.shape[3], width)
    return rows.to(maps) @ maps @ columns.to(maps).T


def to_the_smaller(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Two maps [B, ., H, W] brought to the smaller height and the smaller width of both."""
    height, width = min(a.shape[2], b.shape[2]), min(a.shape[3], b.shape[3])
    return resized(a, height, width), resized(b, height, width)


def unit(rows: Tensor) -> Tensor:
    """Scaled to length 1 along the last dimension; zeros stay zeros."""
    return F.normalize(rows, dim=-1)


def conv1x1(before: int, after: int, *, bias: bool = False) -> nn.Conv2d:
    """A linear map of channels; on vectors as maps it is a linear layer."""
    return nn.Conv2d(before, after, 1, bias=bias)


def _shares(before: int, after: int) -> Tensor:
    """[after, before]: pixel i is the mean of pixels ⌊i·before/after⌋ to ⌈(i+1)·before/after⌉ - 1."""
    place = torch.arange(after)
    start, stop = place * before // after, ((place + 1) * before + after - 1) // after
    pixels = torch.arange(before)
    covers = (pixels >= start[:, None]) & (pixels < stop[:, None])
    return covers.double() / covers.sum(1, keepdim=True)
