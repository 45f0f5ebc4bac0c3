"""From raw rows of a dataset to what an uploaded network was trained on, as its first layer."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stillhouse.spec.teachers import Preprocessing

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


class PrepareImages(nn.Module):
    """Raw float32 [N, C, H, W] of a dataset → [N, channels, h, w], or [N, h, w, channels] where the layout says so."""

    def __init__(self, preparing: Preprocessing, channels: int | None, white: float) -> None:
        super().__init__()
        self.preparing, self.channels, self.white = preparing, channels, white
        self.scale = white if preparing.scale == "dataset" else float(preparing.scale)
        self.register_buffer("luma", torch.tensor(_LUMA).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("mean", _constant(preparing.mean, 0.0).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", _constant(preparing.std, 1.0).view(1, -1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Colours, size, range, order: in this order."""
        x = self._resized(self._coloured(x))
        if self.preparing.channels == "bgr":
            x = x.flip(1)
        x = (x / self.scale - self.get_buffer("mean")) / self.get_buffer("std")
        return x.permute(0, 2, 3, 1).contiguous() if self.preparing.layout == "nhwc" else x

    def _coloured(self, x: Tensor) -> Tensor:
        if x.shape[1] == 1 and self.channels == 3 and self.preparing.gray == "repeat":
            return x.expand(-1, 3, -1, -1)
        if x.shape[1] == 3 and self.channels == 1 and self.preparing.colour == "luminance":
            return (x * self.get_buffer("luma")).sum(1, keepdim=True)
        return x

    def _resized(self, x: Tensor) -> Tensor:
        if self.preparing.size is None:
            return x
        height, width = resized_to(self.preparing, x.shape[2], x.shape[3])
        if (height, width) != tuple(x.shape[2:]):
            x = self._interpolated(x, (height, width))
        h, w = self.preparing.size
        top, left = round((height - h) / 2), round((width - w) / 2)
        return x[:, :, top : top + h, left : left + w]

    def _interpolated(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        if self.preparing.interpolation == "nearest":
            return F.interpolate(x, size, mode="nearest-exact")
        x = F.interpolate(x, size, mode=self.preparing.interpolation, align_corners=False, antialias=True)
        # Bicubic weights overshoot; images of bytes, on which networks are trained, cannot.
        return x.clamp(0, self.white) if self.preparing.interpolation == "bicubic" else x


class PrepareTable(nn.Module):
    """Raw float32 [N, F] → [N, F], scaled and centred."""

    def __init__(self, preparing: Preprocessing, white: float) -> None:
        super().__init__()
        self.scale = white if preparing.scale == "dataset" else float(preparing.scale)
        self.register_buffer("mean", _constant(preparing.mean, 0.0), persistent=False)
        self.register_buffer("std", _constant(preparing.std, 1.0), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Scale, then mean and standard deviation."""
        return (x / self.scale - self.get_buffer("mean")) / self.get_buffer("std")


def resized_to(preparing: Preprocessing, height: int, width: int) -> tuple[int, int]:
    """Height and width an image of `height` × `width` is resized to before it is cropped to `preparing.size`."""
    assert preparing.size is not None
    # 224 / (224 / 232) is a little below 232.
    tall, wide = (math.floor(side / preparing.crop + 1e-6) for side in preparing.size)
    if preparing.fit == "stretch":
        return tall, wide
    if tall * width >= wide * height:
        return tall, max(wide, tall * width // height)
    return max(tall, wide * height // width), wide


def _constant(numbers: Sequence[float], default: float) -> Tensor:
    return torch.tensor(numbers or (default,), dtype=torch.float32)
