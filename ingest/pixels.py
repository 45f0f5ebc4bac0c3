"""Images saved as arrays of numbers: which axis is what, and what the numbers mean.

Three axes are gray images [N, H, W]. Four are images with channels last [N, H, W, C] when the last axis is 1, 3 or 4
long, else with channels first [N, C, H, W] when the second is. Pixels become uint8: integers from 0 to 255 as they
are, fractions from 0 to 1 times 255, other fractions up to 255 rounded, truth values 0 and 255.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ingest.images import resize
from ingest.npy import Array
from stillhouse.spec.limits import Limits
from stillhouse.spec.refusing import invalid, quoted, too_large
from stillhouse.spec.upload import IngestOptions

_CHANNELS = (1, 3, 4)
_SCALE_SLACK = 1e-3


@dataclass(frozen=True)
class Pixels:
    """How the images of all x become uint8 [n, C, H, W]."""

    axes: tuple[int, int, int, int]
    """Of the block, once it has four, in the order N, C, H, W."""
    factor: float
    side: int | None
    """Resize to a square of this side; None keeps the size."""

    def convert(self, block: NDArray[Any]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Convert a block."""
        block = (block[..., None] if block.ndim == 3 else block).transpose(self.axes)
        finite = np.isfinite(block).all(axis=(1, 2, 3))
        if block.dtype != np.uint8:
            values = np.where(finite[:, None, None, None], block, 0).astype(np.float64)
            block = np.clip(np.rint(values * self.factor), 0, 255).astype(np.uint8)
        if self.side is not None:
            block = np.stack([resize(image, self.side) for image in block])
        return block, finite


def plan_pixels(
    arrays: Sequence[Array], options: IngestOptions, limits: Limits
) -> tuple[Pixels, tuple[int, ...], list[str]]:
    """How to convert the images, the shape [C, H, W] they get, and notes.

    Raises InvalidData when shape or values do not tell what they mean, TooLarge for too many pixels.
    """
    x = arrays[0]
    saved = x.shape if len(x.shape) == 4 else (*x.shape, 1)
    axes = _axes(saved, x)
    channels, height, width = (saved[axis] for axis in axes[1:])
    if height * width > limits.max_image_pixels:
        detail = f"The images have {height:,} × {width:,} pixels, the limit is {limits.max_image_pixels:,} in all."
        raise too_large(x.pointer, "too_many_pixels", detail)
    notes = []
    side = options.image_size
    if side is None and max(height, width) > limits.max_image_side:
        side = limits.max_image_side
        notes.append(f"The images are larger than the limit of {side} pixels; they were resized to {side} × {side}.")
    if (side, side) == (height, width):
        side = None
    factor, scale_notes = _common_scale(arrays)
    shape = (channels, height, width) if side is None else (channels, side, side)
    return Pixels(axes, factor, side), shape, notes + scale_notes


def _axes(shape: tuple[int, ...], x: Array) -> tuple[int, int, int, int]:
    if shape[3] in _CHANNELS:
        return 0, 3, 1, 2
    if shape[1] in _CHANNELS:
        return 0, 1, 2, 3
    detail = f"Array {quoted(x.name)} has shape {x.shape}: no axis of 1, 3 or 4 channels, neither last nor second."
    raise invalid(x.pointer, "bad_shape", detail, "Save images as [N, H, W, C] or [N, C, H, W].")


def _common_scale(arrays: Sequence[Array]) -> tuple[float, list[str]]:
    """What the pixels of all arrays are multiplied by. Raises InvalidData when they differ or are not clear."""
    first, factor, notes = arrays[0], *_scale(arrays[0])
    for x in arrays[1:]:
        other, more = _scale(x)
        if other != factor:
            detail = f"The pixels of {quoted(x.name)} and {quoted(first.name)} do not have the same scale."
            raise invalid(x.pointer, "pixel_range", detail, "Save all splits alike, best as uint8 from 0 to 255.")
        notes += [note for note in more if note not in notes]
    return factor, notes


def _scale(x: Array) -> tuple[float, list[str]]:
    """What pixels are multiplied by. Raises InvalidData when it is not clear what they mean."""
    if x.dtype == np.uint8:
        return 1.0, []
    if x.dtype.kind == "b":
        return 255.0, ["Pixels were truth values; true became 255."]
    low, high = _range(x)
    whole = x.dtype.kind in "iu"
    if whole and low >= 0 and high <= 255:
        return 1.0, []
    # A little beyond 1 is the rounding of whoever scaled them; from there to 2 it could be either.
    if not whole and low >= -_SCALE_SLACK and high <= 1 + _SCALE_SLACK:
        return 255.0, ["Pixels were fractions from 0 to 1; they were multiplied by 255 and rounded."]
    if not whole and low > -0.5 and 2 <= high < 255.5:
        return 1.0, ["Pixels were fractions up to 255; they were rounded."]
    detail = f"Pixels go from {low:g} to {high:g}; they must be 0 to 255, or fractions from 0 to 1."
    raise invalid(x.pointer, "pixel_range", detail, "Undo the normalisation and save them as uint8.")


def _range(x: Array) -> tuple[float, float]:
    """Least and greatest finite value."""
    low, high = np.inf, -np.inf
    for block in x.blocks():
        finite = block[np.isfinite(block)]
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    return (0.0, 0.0) if low > high else (low, high)
