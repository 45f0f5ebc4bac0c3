"""RandAugment: a few random operations of one strength (Cubuk et al. 2019, arXiv:1909.13719).

Operations and their range are those of `torchvision.transforms.v2.RandAugment`, and its functions do the work. Which
operation an image gets is drawn here, image by image, where torchvision draws once for a batch; images that got the
same go through it together.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from stillhouse.spec.training import RandAugment

_STRONGEST = 30

# (uint8 images [B, 1 or 3, H, W], strength from -1 to 1) → images of the same shape
Operation = Callable[[Tensor, float], Tensor]


def rand_augment(
    policy: RandAugment, count: int, device: torch.device, stream: torch.Generator, *, white: float
) -> Callable[[Tensor, Tensor], Tensor]:
    """A change of images [B, 1 or 3, H, W] with values from 0 to `white`, by their positions [B] out of `count`."""
    drawn = torch.randint(2 * len(OPERATIONS), (count, policy.ops), generator=stream, dtype=torch.uint8).to(device)
    strength = policy.magnitude / _STRONGEST

    def change(images: Tensor, batch: Tensor) -> Tensor:
        if white == 255:
            return applied(images, drawn[batch], strength)
        # The operations know 8 bits: 0 is black, 255 is white.
        scaled = (images.float() * (255 / white)).round().clamp(0, 255).to(torch.uint8)
        return applied(scaled, drawn[batch], strength).float() * (white / 255)

    return change


def applied(images: Tensor, drawn: Tensor, strength: float) -> Tensor:
    """Images uint8 [B, C, H, W] after their operations [B, ops]: twice the place in OPERATIONS, plus 1 to reverse."""
    out = images.clone()
    for choice in drawn.long().T:  # [B]
        for number in choice.unique().tolist():
            chosen = (choice == number).nonzero().flatten()
            operation = OPERATIONS[number // 2]
            out[chosen] = operation(out[chosen], -strength if number % 2 else strength)
    return out


def _shear(images: Tensor, x: float, y: float) -> Tensor:
    degrees = [math.degrees(math.atan(0.3 * x)), math.degrees(math.atan(0.3 * y))]
    out: Tensor = F.affine(images, angle=0.0, translate=[0, 0], scale=1.0, shear=degrees, center=[0, 0])
    return out


def _translate(images: Tensor, x: float, y: float) -> Tensor:
    height, width = images.shape[2:]
    shift = [int(150 / 331 * width * x), int(150 / 331 * height * y)]
    out: Tensor = F.affine(images, angle=0.0, translate=shift, scale=1.0, shear=[0.0, 0.0])
    return out


OPERATIONS: tuple[Operation, ...] = (
    lambda images, s: images,
    lambda images, s: _shear(images, s, 0),
    lambda images, s: _shear(images, 0, s),
    lambda images, s: _translate(images, s, 0),
    lambda images, s: _translate(images, 0, s),
    lambda images, s: F.rotate(images, 30 * s),
    lambda images, s: F.adjust_brightness(images, 1 + 0.9 * s),
    lambda images, s: F.adjust_saturation(images, 1 + 0.9 * s),
    lambda images, s: F.adjust_contrast(images, 1 + 0.9 * s),
    lambda images, s: F.adjust_sharpness(images, 1 + 0.9 * s),
    lambda images, s: F.posterize(images, 8 - round(4 * abs(s))),
    lambda images, s: F.solarize(images, 255 * (1 - abs(s))),
    lambda images, s: F.autocontrast(images),
    lambda images, s: F.equalize(images),
)
