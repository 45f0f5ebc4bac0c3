"""Colour jitter, each image by its own draw. torchvision's draws one factor for all images of a batch."""

import torch
from torch import Tensor

_LUMA = (0.2989, 0.587, 0.114)  # ITU-R BT.601, as torchvision rounds it


def jittered(images: Tensor, factors: Tensor, *, white: float) -> Tensor:
    """Brightness, then contrast, then, in colour, saturation, each clamped to 0 … `white`.

    `images` float32 [B, 1 or 3, H, W], `factors` [B, 3], 1 leaves an image as it is. A factor f makes f · image +
    (1 - f) · (black, the mean gray of the image, or the image in gray).
    """
    brightness, contrast, saturation = factors.T[:, :, None, None, None]  # [B, 1, 1, 1] each
    images = (images * brightness).clamp(0, white)
    mean = _gray(images).mean((1, 2, 3), keepdim=True)
    images = _blend(images, mean, contrast, white)
    return images if images.shape[1] == 1 else _blend(images, _gray(images), saturation, white)


def _gray(images: Tensor) -> Tensor:
    """[B, 1, H, W]."""
    if images.shape[1] == 1:
        return images
    return (images * torch.tensor(_LUMA, device=images.device).view(1, 3, 1, 1)).sum(1, keepdim=True)


def _blend(images: Tensor, other: Tensor, factor: Tensor, white: float) -> Tensor:
    return (factor * images + (1 - factor) * other).clamp(0, white)
