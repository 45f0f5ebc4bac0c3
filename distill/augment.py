"""Random views of training images. A view is a pure function of (seed, epoch, row), whatever batch the row is in.

Every random number of an epoch is drawn at its start, for all rows at once: a few bytes a row. Then images change batch
by batch, in this order: crop and flip, RandAugment, colour jitter, erasing. Mixing images is `distill.mixing`.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from distill.colour import jittered
from distill.data import Dataset
from distill.seeds import generator
from stillhouse.spec.training import Augmentation

# (positions in the training split [B], their row numbers in the dataset [B]) → raw float32 inputs [B, …]
Seen = Callable[[Tensor, Tensor], Tensor]
# (images [B, C, H, W], positions in the training split [B]) → images of the same shape
Change = Callable[[Tensor, Tensor], Tensor]

_ERASED_SHARE, _ERASED_RATIO = (0.02, 0.33), (0.3, 3.3)


def moves(augmentation: Augmentation) -> bool:
    """True when rows are changed at all."""
    return augmentation != Augmentation()


def view(data: Dataset, augmentation: Augmentation, seed: int, stream: str, epoch: int) -> Seen:
    """What the networks see in one epoch, before images are mixed."""
    changes = _changes(data, augmentation, lambda purpose: generator(seed, stream, purpose, epoch))
    if not changes:
        return lambda batch, rows: data.inputs(rows)

    def seen(batch: Tensor, rows: Tensor) -> Tensor:
        images = data.gather(rows)
        for change in changes:
            images = change(images, batch)
        return images.float()

    return seen


def _changes(data: Dataset, augmentation: Augmentation, stream_for: Callable[[str], torch.Generator]) -> list[Change]:
    """What is asked for, in order; each with a stream of its own, so that one more leaves the others' draws alone."""
    count, device = len(data.rows["train"]), data.x.device
    changes: list[Change] = []
    if augmentation.crop_padding or augmentation.horizontal_flip:
        changes.append(_moves(augmentation, count, device, stream_for("augment")))
    if (policy := augmentation.rand_augment) is not None:
        # torchvision takes seconds to import, and few jobs need it.
        from distill.rand_augment import rand_augment

        changes.append(rand_augment(policy, count, device, stream_for("rand augment"), white=data.white))
    if (strength := augmentation.colour_jitter) > 0:
        factors = 1 + strength * (2 * torch.rand(count, 3, generator=stream_for("colour jitter")) - 1)
        drawn, white = factors.to(device), data.white
        changes.append(lambda images, batch: jittered(images.float(), drawn[batch], white=white))
    if augmentation.random_erasing > 0:
        changes.append(_erasing(data, augmentation.random_erasing, stream_for("erasing")))
    return changes


def _moves(augmentation: Augmentation, count: int, device: torch.device, stream: torch.Generator) -> Change:
    pad = augmentation.crop_padding
    shift = torch.randint(-pad, pad + 1, (count, 2), generator=stream).to(device)
    flip = torch.rand(count, generator=stream).to(device) < (0.5 if augmentation.horizontal_flip else 0.0)
    return lambda images, batch: moved(images, shift[batch], flip[batch], pad=pad)


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


def _erasing(data: Dataset, probability: float, stream: torch.Generator) -> Change:
    count, (_, height, width), device = len(data.rows["train"]), data.facts.shape, data.x.device
    draws = torch.rand(count, 5, generator=stream)
    boxes = erased_boxes(draws[:, 1:], height, width)
    boxes[draws[:, 0] >= probability] = 0  # an empty box
    boxes = boxes.to(device)
    return lambda images, batch: erased(images, boxes[batch])


def erased_boxes(draws: Tensor, height: int, width: int) -> Tensor:
    """From uniform numbers [N, 4] to boxes (top, bottom, left, right) int64 [N, 4] within an image.

    A box takes 2 to 33 % of the image and has sides of 0.3 to 3.3 (Zhong et al. 2017, arXiv:1708.04896 §3; the
    proportions of torchvision); one that would not fit is cut to the image.
    """
    (least, most), (flat, tall) = _ERASED_SHARE, torch.tensor(_ERASED_RATIO).log().tolist()
    area = height * width * (least + (most - least) * draws[:, 0])
    ratio = (flat + (tall - flat) * draws[:, 1]).exp()
    h = (area * ratio).sqrt().round().clamp(1, height)
    w = (area / ratio).sqrt().round().clamp(1, width)
    top, left = (draws[:, 2] * (height - h + 1)).floor(), (draws[:, 3] * (width - w + 1)).floor()
    return torch.stack([top, top + h, left, left + w], dim=1).long()


def erased(images: Tensor, boxes: Tensor) -> Tensor:
    """Zeros in each image's own box (top, bottom, left, right), int64 [B, 4]."""
    top, bottom, left, right = boxes.T[:, :, None]  # [B, 1] each
    ys = torch.arange(images.shape[2], device=images.device)
    xs = torch.arange(images.shape[3], device=images.device)
    inside = ((ys >= top) & (ys < bottom))[:, :, None] & ((xs >= left) & (xs < right))[:, None, :]  # [B, H, W]
    return images.masked_fill(inside[:, None], 0)
