"""One image: from the bytes of a PNG or JPEG, or from numbers in an array, to uint8 [C, H, W]."""

import io
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from stillhouse.spec.limits import Limits
from stillhouse.spec.upload import IngestOptions

MAX_IMAGE_BYTES = 256 * 1024**2
"""Of one image as it was uploaded."""
IMAGE_MAGICS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")
"""First bytes of the formats that are read."""
_FORMATS = ("PNG", "JPEG")
_GRAY_MODES = frozenset({"1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "F"})
_ORIENTATION_TAG = 0x0112
# What undoes each orientation a camera writes: https://www.cipa.jp/std/documents/e/DC-008-2012_E.pdf, tag 274.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_TURNS_SIDES = frozenset({5, 6, 7, 8})
_BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    EOFError,
    OverflowError,
    struct.error,
    zlib.error,
)
"""What Pillow raises on broken files; it has no class of its own for them."""


class BadImage(Exception):
    """An image that cannot be used."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


@dataclass(frozen=True)
class Outline:
    """What the header of an image says."""

    height: int
    width: int
    """In pixels, upright."""
    gray: bool


@dataclass(frozen=True)
class Picture:
    """A decoded image and what was done to it."""

    pixels: NDArray[np.uint8]
    """[C, H, W], C = 1 or 3."""
    changes: tuple[str, ...]
    """Past participles: turned upright, laid on white, reduced from 16 bits, resized."""


def outline(file: IO[bytes], limits: Limits) -> Outline:
    """Size and kind of the image in `file`, without its pixels. Raises BadImage."""
    with _quiet(), _opened(file, limits) as image:
        width, height = image.size
        if _orientation(image) in _TURNS_SIDES:
            width, height = height, width
        return Outline(height, width, image.mode in _GRAY_MODES)


def common_size(known: Sequence[Outline], options: IngestOptions, limits: Limits) -> tuple[int, int, list[str]]:
    """Height and width that all images get, and notes on how they were found."""
    sizes = {(found.height, found.width) for found in known}
    if options.image_size is not None:
        return options.image_size, options.image_size, []
    if len(sizes) == 1 and max(next(iter(sizes))) <= limits.max_image_side:
        return *next(iter(sizes)), []
    median = int(np.median([side for found in known for side in (found.height, found.width)]))
    side = max(1, min(median, limits.max_image_side))
    if len(sizes) == 1:
        return side, side, [f"The images are larger than the limit of {limits.max_image_side} pixels."]
    return side, side, [f"The images have {len(sizes):,} different sizes; the median side is {median} pixels."]


def decode(data: bytes, *, gray: bool, height: int, width: int, limits: Limits) -> Picture:
    """The image in `data`, upright, in gray or RGB, as uint8 [1 or 3, height, width]. Raises BadImage."""
    with _quiet(), _opened(io.BytesIO(data), limits) as image:
        _verify(image)
    changes: list[str] = []
    with _quiet(), _opened(io.BytesIO(data), limits) as image:
        try:
            image.load()
            turn = _UPRIGHT.get(_orientation(image))
            plain = _plain(image, gray, changes)
        except _BROKEN:
            raise _corrupt() from None
    if turn is not None:
        plain = plain.transpose(turn)
        changes.append("turned upright")
    if plain.size != (width, height):
        plain = plain.resize((width, height), Image.Resampling.BILINEAR)
        changes.append("resized")
    pixels = np.asarray(plain, np.uint8).reshape(height, width, -1)
    return Picture(np.ascontiguousarray(pixels.transpose(2, 0, 1)), tuple(changes))


def resize(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """[C, H, W] → [C, side, side], channel by channel."""
    channels = [Image.fromarray(c).resize((side, side), Image.Resampling.BILINEAR) for c in pixels]
    return np.stack([np.asarray(c, np.uint8) for c in channels])


@contextmanager
def _quiet() -> Iterator[None]:
    """Pillow warns of much that does not matter (odd EXIF) and of one thing that does."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def _opened(file: IO[bytes], limits: Limits) -> Image.Image:
    # Two formats only: each further parser is one more thing a stranger can feed (see Pillow's security page).
    Image.MAX_IMAGE_PIXELS = limits.max_image_pixels
    try:
        image = Image.open(file, formats=_FORMATS)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        reason = f"The image has more pixels than the limit of {limits.max_image_pixels:,}."
        raise BadImage("too_many_pixels", reason) from None
    except UnidentifiedImageError:
        if _says_it_is_one(file):
            raise _corrupt() from None
        raise BadImage("unsupported_image", "This is not a PNG or JPEG image.") from None
    except _BROKEN:
        raise _corrupt() from None
    # A phone's JPEG may carry a preview behind the photo (MPO); the photo is what is read. A film is no photo.
    if image.format == "PNG" and getattr(image, "is_animated", False):
        raise BadImage("several_frames", "The image is animated: one frame is needed.")
    return image


def _says_it_is_one(file: IO[bytes]) -> bool:
    """True for the first bytes of a PNG or JPEG whose header then makes no sense."""
    file.seek(0)
    return file.read(8).startswith(IMAGE_MAGICS)


def _verify(image: Image.Image) -> None:
    """Check the checksums, which decoding does not."""
    try:
        image.verify()
    except _BROKEN:
        raise _corrupt() from None


def _orientation(image: Image.Image) -> int:
    if image.format == "PNG" and "exif" not in image.info:
        return 1  # or Pillow would decode all pixels to look behind them
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except _BROKEN:  # photos with broken EXIF are common and show well
        return 1
    return value if isinstance(value, int) else 1


def _plain(image: Image.Image, gray: bool, changes: list[str]) -> Image.Image:
    """`image` as 8-bit gray or RGB without transparency."""
    mode = "L" if gray else "RGB"
    if image.mode.startswith("I"):
        changes.append("reduced from 16 bits")
        deep = np.clip(np.asarray(image, np.float64), 0, 65_535)
        return Image.fromarray(np.rint(deep / 257).astype(np.uint8)).convert(mode)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        changes.append("laid on white")
        clear = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear).convert(mode)
    return image.convert(mode)


def _corrupt() -> BadImage:
    return BadImage("corrupt_image", "The image is broken or not complete.")
