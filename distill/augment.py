"""Random views of training images. A view is a pure function of (seed, epoch, row), whatever batch the row is in."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from distill.data import Dataset
from distill.seeds import generator
from stillhouse.spec.job import Augmentation


def moves(augmentation: Augmentation) -> bool:
    """True when images are changed at all."""
    return augmentation.crop_padding > 0 or augmentation.horizontal_flip


def view(data: Dataset, augmentation: Augmentation, seed: int, stream: str, epoch: int) -> Callable[[Tensor], Tensor]:
    """What a network sees in one epoch: positions in the training split [B] → raw float32 rows [B, …]."""
    rows = data.rows["train"]
    if not moves(augmentation):
        return lambda batch: data.inputs(rows[batch])
    shift, flip = _draw(len(rows), augmentation, generator(seed, stream, "augment", epoch))
    shift, flip = shift.to(rows.device), flip.to(rows.device)
    pad = augmentation.crop_padding
    return lambda batch: moved(data.x[rows[batch]], shift[batch], flip[batch], pad).float()


def moved(images: Tensor, shift: Tensor, flip: Tensor, pad: int) -> Tensor:
    """Shift each image by its own (down, right) pixels, zeros entering, then mirror it where `flip`.

    `images` [B, C, H, W], `shift` int64 [B, 2] within ±pad, `flip` bool [B] → [B, C, H, W] of the same type.
    """
    count, _, height, width = images.shape
    padded = F.pad(images, (pad, pad, pad, pad))
    down, right = shift[:, :1], shift[:, 1:]
    ys = torch.arange(height, device=images.device) + pad - down  # [B, H]: the source row of each row
    xs = torch.arange(width, device=images.device).expand(count, -1)
    xs = torch.where(flip[:, None], xs.flip(1), xs) + pad - right  # [B, W]
    picked = padded[torch.arange(count, device=images.device)[:, None, None], :, ys[:, :, None], xs[:, None, :]]
    return picked.permute(0, 3, 1, 2).contiguous()  # advanced indexing put the channels last


def _draw(rows: int, augmentation: Augmentation, stream: torch.Generator) -> tuple[Tensor, Tensor]:
    pad = augmentation.crop_padding
    shift = torch.randint(-pad, pad + 1, (rows, 2), generator=stream)
    if not augmentation.horizontal_flip:
        return shift, torch.zeros(rows, dtype=torch.bool)
    return shift, torch.rand(rows, generator=stream) < 0.5
