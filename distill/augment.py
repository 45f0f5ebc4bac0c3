"""Random views of training images. A view is a pure function of (seed, epoch, row), whatever batch the row is in."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from distill.data import Dataset
from distill.seeds import generator
from stillhouse.spec.job import Augmentation

# (positions in the training split [B], their row numbers in the dataset [B]) → raw float32 inputs [B, …]
Seen = Callable[[Tensor, Tensor], Tensor]


def moves(augmentation: Augmentation) -> bool:
    """True when images are changed at all."""
    return augmentation.crop_padding > 0 or augmentation.horizontal_flip


def view(data: Dataset, augmentation: Augmentation, seed: int, stream: str, epoch: int) -> Seen:
    """What the networks see in one epoch."""
    if not moves(augmentation):
        return lambda batch, rows: data.inputs(rows)
    count, device, pad = len(data.rows["train"]), data.x.device, augmentation.crop_padding
    stream_of_epoch = generator(seed, stream, "augment", epoch)
    # Drawn for all rows at once: a view does not depend on how rows are grouped into batches.
    shift = torch.randint(-pad, pad + 1, (count, 2), generator=stream_of_epoch).to(device)
    flip = torch.rand(count, generator=stream_of_epoch).to(device) < (0.5 if augmentation.horizontal_flip else 0.0)
    return lambda batch, rows: moved(data.x[rows], shift[batch], flip[batch], pad=pad).float()


def moved(images: Tensor, shift: Tensor, flip: Tensor, *, pad: int) -> Tensor:
    """Mirror each image where `flip`, then shift it by its own (down, right) pixels, zeros entering.

    `images` [B, C, H, W], `shift` int64 [B, 2] within ±pad, `flip` bool [B] → [B, C, H, W] of the same type.
    """
    count, _, height, width = images.shape
    padded = F.pad(images, (pad, pad, pad, pad))
    down, right = shift[:, :1], shift[:, 1:]
    # Where each pixel comes from in the padded image: ys [B, H], xs [B, W].
    ys = torch.arange(height, device=images.device) + pad - down
    xs = torch.arange(width, device=images.device) - right
    xs = torch.where(flip[:, None], width - 1 - xs, xs) + pad
    picked = padded[torch.arange(count, device=images.device)[:, None, None], :, ys[:, :, None], xs[:, None, :]]
    return picked.permute(0, 3, 1, 2).contiguous()  # advanced indexing put the channels last
