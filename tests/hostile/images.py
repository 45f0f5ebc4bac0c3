"""Hostile images, each in a ZIP beside good ones."""

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from tests.hostile.case import Case, uploads
from tests.ingest.making import archive, image, pets, pixels

X = "/file/members/cat~1x.png"


def beside(make: Callable[[], bytes]) -> Callable[[], bytes]:
    """The image among good ones."""
    return lambda: archive([*pets(), ("cat/x.png", make())])


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *, depth: int = 8, colour: int = 2, data: bytes = b"", more: bytes = b"") -> bytes:
    """A PNG whose header says what it likes."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + more + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def saved(picture: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def jpeg_of(width: int, height: int) -> bytes:
    """A small JPEG whose frame header claims another size."""
    data = bytearray(image(pixels(8, 8, 3), "JPEG"))
    at = data.index(b"\xff\xc0")
    struct.pack_into(">HH", data, at + 5, height, width)
    return bytes(data)


def gif_of(width: int, height: int) -> bytes:
    data = bytearray(image(pixels(8, 8), "GIF"))
    struct.pack_into("<HH", data, 6, width, height)
    return bytes(data)


def webp() -> bytes:
    return image(pixels(8, 8, 3), "WEBP")


def tiff_of(side: int) -> bytes:
    """A TIFF of one tag: a width of `side`."""
    return b"II*\x00\x08\x00\x00\x00\x01\x00" + struct.pack("<HHII", 256, 4, 1, side) + bytes(4)


def animated(kind: str) -> bytes:
    frames = [Image.fromarray(pixels(8, 8, 3, seed=i)) for i in range(3)]
    return saved(frames[0], kind, save_all=True, append_images=frames[1:])


def palette() -> bytes:
    return saved(Image.fromarray(pixels(6, 5, 3)).convert("P"), "PNG")


def short_palette() -> bytes:
    """Pixels name colours that the palette lacks."""
    rows = b"".join(b"\0" + bytes([250] * 5) for _ in range(6))
    return png(5, 6, colour=3, data=rows, more=chunk(b"PLTE", b"\x10\x20\x30"))


def no_palette() -> bytes:
    return png(5, 6, colour=3, data=b"".join(b"\0" + bytes(5) for _ in range(6)))


def deep() -> bytes:
    return saved(Image.fromarray(pixels(6, 5).astype(np.uint16) * 257), "PNG")


def cmyk() -> bytes:
    return saved(Image.fromarray(pixels(6, 5, 3)).convert("CMYK"), "JPEG")


def oriented(value: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = value
    return saved(Image.fromarray(pixels(6, 5, 3)), "JPEG", exif=exif)


def broken_exif() -> bytes:
    return saved(Image.fromarray(pixels(6, 5, 3)), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff" + b"\xff" * 50)


def text_bomb() -> bytes:
    """A compressed text of 60 MB in a PNG of 30 pixels."""
    return png(5, 6, data=bytes(96), more=chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(60_000_000))))


def profile_bomb() -> bytes:
    return png(5, 6, data=bytes(96), more=chunk(b"iCCP", b"k\0\0" + zlib.compress(bytes(60_000_000))))


def pixels_bomb() -> bytes:
    """Data for far more pixels than the header has."""
    return png(5, 6, data=bytes(30_000_000))


def bad_crc() -> bytes:
    data = bytearray(image(pixels(6, 5, 3)))
    data[data.index(b"IDAT") + 6] ^= 1
    return bytes(data)


def cut(share: float) -> Callable[[], bytes]:
    def make() -> bytes:
        data = image(pixels(20, 20, 3))
        return data[: int(len(data) * share)]

    return make


def html_behind() -> bytes:
    return image(pixels(6, 5, 3)) + b"<script>alert(1)</script>"


_ROWS: list[Any] = [
    ("a PNG of 4 gigapixels", beside(lambda: png(65_535, 65_535)), "invalid_data/too_many_pixels", X),
    ("a PNG of 2^31 by 2^31", beside(lambda: png(2**31 - 1, 2**31 - 1)), "invalid_data/too_many_pixels", X),
    ("a PNG without width", beside(lambda: png(0, 6)), "invalid_data/corrupt_image", X),
    ("a PNG of 64 bits a channel", beside(lambda: png(5, 6, depth=64)), "invalid_data/corrupt_image", X),
    ("a PNG of 7,000 by 7,000 without pixels", beside(lambda: png(7000, 7000)), "invalid_data/corrupt_image", X),
    ("a JPEG of 4 gigapixels", beside(lambda: jpeg_of(65_535, 65_535)), "invalid_data/too_many_pixels", X),
    ("a JPEG without height", beside(lambda: jpeg_of(8, 0)), "invalid_data/corrupt_image", X),
    ("a GIF of 4 gigapixels", beside(lambda: gif_of(65_535, 65_535)), "invalid_data/unsupported_image", X),
    ("a WebP named .png", beside(webp), "invalid_data/unsupported_image", X),
    ("a TIFF of 4 gigapixels on a side", beside(lambda: tiff_of(2**32 - 1)), "invalid_data/unsupported_image", X),
    ("an SVG that reads a file", beside(lambda: b'<svg xmlns="x"><image href="file:///etc/passwd"/></svg>'),
     "invalid_data/unsupported_image", X),
    ("PostScript", beside(lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"), "invalid_data/unsupported_image", X),
    ("an animated PNG", beside(lambda: animated("PNG")), "invalid_data/several_frames", X),
    ("an animated GIF", beside(lambda: animated("GIF")), "invalid_data/unsupported_image", X),
    ("a photo with a second one behind it", beside(lambda: animated("MPO")), "", ""),
    ("a palette", beside(palette), "", ""),
    ("a palette that is too short", beside(short_palette), "", ""),
    ("a palette that is missing", beside(no_palette), "", ""),
    ("16 bits", beside(deep), "", ""),
    ("CMYK", beside(cmyk), "", ""),
    ("a camera held upside down", beside(lambda: oriented(3)), "", ""),
    ("an orientation nobody knows", beside(lambda: oriented(60_000)), "", ""),
    ("broken EXIF", beside(broken_exif), "", ""),
    ("60 MB of text in a PNG", beside(text_bomb), "invalid_data/corrupt_image", X),
    ("60 MB of colour profile in a PNG", beside(profile_bomb), "invalid_data/corrupt_image", X),
    ("a million pixels too many", beside(pixels_bomb), "", ""),
    ("a flipped bit in a PNG", beside(bad_crc), "invalid_data/corrupt_image", X),
    ("a third of a PNG", beside(cut(0.33)), "invalid_data/corrupt_image", X),
    ("a PNG without its end", beside(cut(0.99)), "invalid_data/corrupt_image", X),
    ("a page of HTML behind a PNG", beside(html_behind), "", ""),
    ("an image of no bytes", beside(bytes), "invalid_data/unsupported_image", X),
]  # fmt: skip

CASES: list[Case] = uploads("/v1/datasets", _ROWS)
