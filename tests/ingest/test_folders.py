"""ZIPs of class folders: layouts, and what happens to each image."""

import io
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from stillhouse.spec.limits import Limits
from tests.ingest.conftest import Refuse, Store, first
from tests.ingest.making import archive, image, pets, pixels


def test_folders_are_classes_and_images_come_in_the_order_of_their_names(store: Store) -> None:
    members = pets()
    stored = store(archive(members))
    assert stored.facts.task == "image-classification"
    assert (stored.facts.shape, stored.facts.classes) == ((3, 6, 5), ("cat", "dog"))
    assert stored.labels == ["cat"] * 5 + ["dog"] * 5
    np.testing.assert_array_equal(stored.x[7].transpose(1, 2, 0), pixels(6, 5, 3, seed=102))
    assert store(archive(reversed(members))).bytes == stored.bytes


@pytest.mark.parametrize("root", ["", "pets/", "train/"])
@pytest.mark.parametrize("folders", [False, True])
def test_one_folder_around_everything_does_not_matter(store: Store, root: str, folders: bool) -> None:
    members = [(root + str(name), data) for name, data in pets()]
    if folders:
        members = [(root, b""), (root + "cat/", b""), *members] if root else [("cat/", b""), *members]
    assert store(archive(members)).bytes == store(archive(pets())).bytes


@pytest.mark.parametrize("root", ["", "pets/"])
@pytest.mark.parametrize(
    "names", [("train", "validation", "test"), ("Train", "val", "TEST"), ("train", "valid", "test")]
)
def test_folders_above_the_classes_are_splits(store: Store, root: str, names: Sequence[str]) -> None:
    members = [member for name in names for member in pets(3, prefix=f"{root}{name}/")]
    stored = store(archive(members))
    assert stored.facts.rows == {"train": 6, "validation": 6, "test": 6}
    assert stored.facts.classes == ("cat", "dog")


def test_numbered_folders_sort_as_numbers(store: Store) -> None:
    members = [(f"{c}/{i}.png", image(pixels(4, 4, seed=10 * c + i))) for c in (9, 10, 1) for i in range(3)]
    assert store(archive(members)).facts.classes == ("1", "9", "10")


def test_folders_below_a_class_belong_to_it(store: Store) -> None:
    members = [(f"{c}/day{i}/a.png", image(pixels(4, 4, seed=10 * c + i))) for c in (1, 2) for i in range(3)]
    assert store(archive(members)).labels == ["1"] * 3 + ["2"] * 3


@pytest.mark.parametrize(
    ("extra", "wrong"),
    [
        (["a.png"], "a.png"),
        (["train/cat/a.png"], "cat/0.png"),
        (["test/a.png"], "cat/0.png"),
    ],
)
def test_images_outside_the_layout_are_named(refuse: Refuse, extra: list[str], wrong: str) -> None:
    error = refuse(archive([*pets(), *((name, image(pixels(6, 5, 3))) for name in extra)]))
    assert first(error) == ("/file/members/" + wrong.replace("/", "~1"), "misplaced_image")


def test_splits_without_class_folders_are_refused(refuse: Refuse) -> None:
    members = [(f"{s}/{i}.png", image(pixels(4, 4, seed=i))) for s in ("train", "test") for i in range(5)]
    assert first(refuse(archive(members)))[1] == "misplaced_image"


def test_a_single_class_is_refused(refuse: Refuse) -> None:
    assert first(refuse(archive(pets()[:5])))[1] == "one_class"


@pytest.mark.parametrize("members", [[], [("notes.txt", b"no image")], [("__MACOSX/cat/._a.png", b"")]])
def test_an_archive_without_images_is_refused(refuse: Refuse, members: list[tuple[str, bytes]]) -> None:
    assert first(refuse(archive(members)))[1] == "no_rows"


def test_hidden_and_other_files_are_ignored_with_a_note(store: Store) -> None:
    clutter = [
        "__MACOSX/cat/._0.png",
        ".DS_Store",
        "cat/.hidden.png",
        "cat/Thumbs.db",
        "README.md",
        "cat/notes.txt",
        "LICENSE",
    ]
    stored = store(archive([*pets(), *((name, b"clutter") for name in clutter)]))
    assert len(stored.x) == 10
    assert stored.report.notes == [
        "Hidden files were ignored: 4, such as '.DS_Store'.",
        "Files that are no images were ignored: 3, such as 'LICENSE'.",
    ]


def test_an_image_is_known_by_its_bytes_not_its_name(store: Store) -> None:
    members = [
        (str(name).replace(".png", suffix), data) for (name, data), suffix in zip(pets(), _SUFFIXES, strict=True)
    ]
    assert store(archive(members)).facts.rows == store(archive(pets())).facts.rows


_SUFFIXES = [".jpg", ".txt", "", ".PNG", ".gif", ".jpeg", ".bin", ".png", ".dat", ".webp"]


def _gif() -> bytes:
    return image(pixels(6, 5), "GIF")


def _animated() -> bytes:
    file = io.BytesIO()
    frames = [Image.fromarray(pixels(6, 5, 3, seed=i)) for i in range(3)]
    frames[0].save(file, "PNG", save_all=True, append_images=frames[1:])
    return file.getvalue()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def huge_png(side: int = 65_535) -> bytes:
    """A few bytes that claim to be side × side pixels."""
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 6, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + _chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + _chunk(b"IEND", b"")


def _flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


_PNG, _JPEG = image(pixels(60, 50, 3)), image(pixels(60, 50, 3), "JPEG")


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "unsupported_image"),
        (b"text", "unsupported_image"),
        (_gif(), "unsupported_image"),
        (image(pixels(6, 5), "TIFF"), "unsupported_image"),
        (image(pixels(6, 5, 3), "WEBP"), "unsupported_image"),
        (_PNG[:20], "corrupt_image"),
        (_PNG[:400], "corrupt_image"),
        (_PNG[:-30], "corrupt_image"),
        (_flipped(_PNG, 400), "corrupt_image"),
        (_flipped(_PNG, len(_PNG) - 14), "corrupt_image"),  # in a checksum, which decoding does not look at
        (_JPEG[:100], "corrupt_image"),
        (_JPEG[:-200], "corrupt_image"),
        (_animated(), "several_frames"),
        (huge_png(), "too_many_pixels"),
        (huge_png(8000), "too_many_pixels"),
    ],
)
def test_a_bad_image_is_named(refuse: Refuse, data: bytes, code: str) -> None:
    error = refuse(archive([*pets(), ("cat/bad one.png", data)]))
    assert [(e.pointer, e.code) for e in error.errors] == [("/file/members/cat~1bad one.png", code)]
    assert "1 of 11 rows" in error.detail


def test_bad_images_can_be_dropped(store: Store) -> None:
    stored = store(archive([*pets(), ("cat/bad.png", b"text"), ("dog/half.png", _PNG[:400])]), bad_rows="drop")
    assert [row.row for row in stored.report.dropped] == ["cat/bad.png", "dog/half.png"]
    assert (stored.report.rows_read, len(stored.x)) == (12, 10)


def test_the_limit_of_pixels_is_exact(store: Store, refuse: Refuse) -> None:
    assert store(archive(pets()), limits=Limits(max_image_pixels=30)).facts.shape == (3, 6, 5)
    assert first(refuse(archive(pets()), limits=Limits(max_image_pixels=29)))[1] == "too_many_pixels"


def _made(mode: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels(6, 5, 3, seed=99)).convert(mode).save(file, "JPEG" if mode == "CMYK" else "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("mode", "channels"), [("L", 1), ("1", 1), ("RGB", 3), ("CMYK", 3), ("P", 3), ("RGBA", 3), ("LA", 1)]
)
def test_gray_stays_gray_only_when_all_images_are(store: Store, mode: str, channels: int) -> None:
    stored = store(archive([*pets(5, (6, 5)), ("cat/x.png", _made(mode))]))
    assert stored.facts.shape == (channels, 6, 5)
    if channels == 3:
        np.testing.assert_array_equal(stored.x[0, 0], stored.x[0, 2])


def test_transparency_is_laid_on_white(store: Store) -> None:
    clear = np.zeros((6, 5, 4), np.uint8)
    clear[:3, :, 3] = 255
    stored = store(archive([*pets(), ("ant/x.png", image(clear)), *_two_more("ant")]))
    assert (stored.x[0, :, :3] == 0).all()
    assert (stored.x[0, :, 3:] == 255).all()
    assert "Images that were laid on white: 1." in stored.report.notes


def test_a_transparent_colour_of_a_palette_is_laid_on_white(store: Store) -> None:
    palette = Image.fromarray(np.zeros((6, 5), np.uint8), "L").convert("P")
    file = io.BytesIO()
    palette.save(file, "PNG", transparency=0)
    assert (store(archive([*pets(), ("ant/x.png", file.getvalue()), *_two_more("ant")])).x[0] == 255).all()


def test_sixteen_bits_are_scaled_to_eight(store: Store) -> None:
    deep = np.linspace(0, 65_535, 30).round().astype(np.uint16).reshape(6, 5)
    stored = store(archive([*pets(5, (6, 5)), ("ant/x.png", image(deep)), *_two_more("ant", (6, 5))]))
    np.testing.assert_array_equal(stored.x[0, 0], np.rint(deep / 257))
    assert stored.x[0].max() == 255
    assert "Images that were reduced from 16 bits: 1." in stored.report.notes


def _two_more(name: str, shape: tuple[int, ...] = (6, 5, 3)) -> list[tuple[str, bytes]]:
    return [(f"{name}/y{i}.png", image(pixels(*shape, seed=50 + i))) for i in range(2)]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_photos_are_turned_upright(store: Store, orientation: int, kind: str) -> None:
    upright = np.zeros((48, 40), np.uint8)
    upright[:24, :20], upright[:24, 20:], upright[24:, :20] = 250, 170, 90  # each corner of its own
    undo = {2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}  # 6 and 8 undo each other, the others themselves
    as_shot = _oriented(upright, undo.get(orientation, 1))
    exif = Image.Exif()
    exif[274] = orientation
    members = [(f"ant/{i}.x", image(as_shot if i else as_shot // 2, kind, exif=exif)) for i in range(2)]
    members += [("ant/2.x", image(upright // 3)), *((f"bee/{i}.x", image(pixels(48, 40, seed=i))) for i in range(3))]
    stored = store(archive(members))
    assert stored.facts.shape == (1, 48, 40), "a photo shot on its side has the size of the others"
    np.testing.assert_allclose(stored.x[1, 0].astype(int), upright, atol=3)


def _oriented(pixels: Any, orientation: int) -> Any:
    """What the EXIF standard says of each orientation, in terms of rows and columns."""
    turned = pixels.T if orientation >= 5 else pixels
    flip_rows = orientation in (3, 4, 7, 8)
    flip_columns = orientation in (2, 3, 6, 7)
    return np.ascontiguousarray(turned[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1])


def test_broken_exif_does_not_spoil_a_photo(store: Store) -> None:
    photo = image(pixels(6, 5, 3), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff" + b"\xff" * 30)
    assert len(store(archive([*pets(), ("cat/photo.jpg", photo)])).x) == 11


def test_a_text_chunk_that_unfolds_to_much_is_refused(refuse: Refuse) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("comment", "x" * 20_000_000, zip=True)
    assert first(refuse(archive([*pets(), ("cat/x.png", image(pixels(6, 5, 3), pnginfo=info))])))[1] == "corrupt_image"


def test_images_of_different_sizes_get_the_median_side(store: Store) -> None:
    members = [(f"{c}/{i}.png", image(pixels(4 + 4 * i, 6 + 4 * i, seed=10 * c + i))) for c in (1, 2) for i in range(3)]
    stored = store(archive(members))
    assert stored.facts.shape == (1, 9, 9)
    assert "The images have 3 different sizes; the median side is 9 pixels." in stored.report.notes
    assert "Images that were resized: 6." in stored.report.notes


def test_images_are_counted(store: Store, refuse: Refuse) -> None:
    assert len(store(archive(pets()), limits=Limits(max_rows=10)).x) == 10
    assert first(refuse(archive(pets()), limits=Limits(max_rows=9))) == ("/file", "too_many_rows")


def test_images_are_resized_on_request_and_at_the_limit(store: Store, refuse: Refuse) -> None:
    assert store(archive(pets()), image_size=4).facts.shape == (3, 4, 4)
    assert store(archive(pets()), limits=Limits(max_image_side=5)).facts.shape == (3, 5, 5)
    over = refuse(archive(pets()), image_size=9, limits=Limits(max_image_side=8))
    assert first(over) == ("?image_size", "over_limit")


@pytest.mark.parametrize("options", [{"label": "y"}, {"split_column": "y"}, {"ignore": ("y",)}])
def test_the_options_of_tables_do_not_apply(refuse: Refuse, options: dict[str, Any]) -> None:
    assert first(refuse(archive(pets()), **options)) == ("?" + next(iter(options)), "option_does_not_apply")


def test_folders_whose_names_look_alike_are_one_class(store: Store) -> None:
    cafes = [
        (f"{name}/{i}.png", image(pixels(6, 5, 3, seed=i))) for i, name in enumerate(["cafe\u0301", "caf\u00e9"] * 3)
    ]
    stored = store(archive([*pets(), *cafes]))
    assert stored.facts.classes == ("caf\u00e9", "cat", "dog")
    assert stored.labels.count("caf\u00e9") == 6
