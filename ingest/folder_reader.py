"""A ZIP of images in class folders.

    cats/1.png                 one folder per class, or
    train/cats/1.png           the splits train, validation (val, valid) and test above the classes,
    pets/train/cats/1.png      either of them in one folder that holds everything.

A folder `unlabelled` in place of a class holds images without a label.

Members that start with a dot, __MACOSX and files that are no images are ignored, with a note. Images are stored in the
order of their names, so the same images packed anew give the same file.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from zipfile import ZipFile, ZipInfo

import numpy as np
from numpy.typing import NDArray

from ingest.errors import BadRows
from ingest.images import IMAGE_MAGICS, MAX_IMAGE_BYTES, BadImage, Outline, common_size, decode, outline
from ingest.labels import UNLABELLED, make_classes, plain
from ingest.reading import Reading
from ingest.rows import RowSpool, Scratch
from ingest.splits import SPLIT_NAMES, TRAIN
from stillhouse.spec.archive import BROKEN, checked_archive, files, member_pointer
from stillhouse.spec.errors import FieldError
from stillhouse.spec.limits import Limits
from stillhouse.spec.refusing import all_invalid, invalid, quoted
from stillhouse.spec.upload import IngestOptions

_MAGIC_BYTES = 8
_ARCHIVE_MAGICS = (b"PK\x03\x04", b"\x1f\x8b", b"7z\xbc\xaf", b"Rar!", b"BZh", b"\xfd7zXZ")
# Files that are meant as images: those of a kind that is not read are refused, not ignored.
_IMAGE_SUFFIXES = frozenset(
    {
        *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".heic", ".heif"),
        *(".avif", ".svg", ".ico", ".ppm", ".jp2", ".psd", ".eps"),
    }
)
_UNLABELLED_NAMES = frozenset({"unlabelled", "unlabeled"})
_ONLY_TRAIN = ", and only a training image can do without"
_LAYOUT_HINT = "Put each image into a folder named after its class; folders train, val and test may stand above."


@dataclass(frozen=True)
class Place:
    """An image of the archive, and what its folders say."""

    member: ZipInfo
    label: str | None
    """None: it is in a folder `unlabelled`."""
    split: int | None

    def lacks_label(self, options: IngestOptions) -> bool:
        """True when it has no label and needs one."""
        return self.label is None and (options.unlabelled == "reject" or self.split not in (None, TRAIN))


def read(path: Path, options: IngestOptions, limits: Limits, scratch: Scratch) -> Reading:
    """Read the images in the archive at `path`. Raises InvalidData or TooLarge."""
    bad = BadRows(options.bad_rows)
    with checked_archive(path, limits) as archive:
        members, notes = _images(archive)
        places = _places(members)
        outlines = [_outline(archive, place, order, options, limits, bad) for order, place in enumerate(places)]
        known = [found for found in outlines if found is not None]
        if not known:
            bad.check(len(places))
        height, width, size_notes = common_size(known, options, limits)
        gray = all(found.gray for found in known)
        rows = RowSpool(scratch, (1 if gray else 3, height, width), np.uint8, limits)
        kept, changes = [], Counter[str]()
        for order, (place, found) in enumerate(zip(places, outlines, strict=True)):
            if found is None:
                continue
            try:
                picture = decode(_bytes(archive, place), gray=gray, height=height, width=width, limits=limits)
            except BadImage as error:
                _note_bad(bad, order, place, error)
                continue
            rows.append(picture.pixels[None])
            kept.append(place)
            changes.update(picture.changes)
    bad.check(len(places))
    classes, index = make_classes({place.label for place in kept if place.label is not None}, "/file", limits)
    return Reading(
        task="image-classification",
        rows=rows,
        labels=np.array([UNLABELLED if p.label is None else index[p.label] for p in kept], np.int64),
        classes=classes,
        given=_given(kept),
        rows_read=len(places),
        bad=bad,
        notes=[*notes, *size_notes, *(f"Images that were {change}: {n:,}." for change, n in changes.items())],
    )


def _images(archive: ZipFile) -> tuple[list[ZipInfo], list[str]]:
    """Members that are or claim to be images, by name, and notes on the others. Raises InvalidData for archives."""
    images, hidden, others, nested = [], [], [], []
    for member in sorted(files(archive), key=lambda m: m.filename):
        suffix = PurePosixPath(member.filename).suffix.lower()
        if _is_hidden(member.filename):
            hidden.append(member.filename)
        elif suffix in _IMAGE_SUFFIXES:
            images.append(member)
        elif (head := _head(archive, member)).startswith(_ARCHIVE_MAGICS):
            nested.append(member)
        elif head.startswith(IMAGE_MAGICS):
            images.append(member)
        else:
            others.append(member.filename)
    if nested:
        raise all_invalid("There are archives inside the archive.", [_nested(m) for m in nested], "Unpack them first.")
    if not images:
        raise invalid("/file", "no_rows", "The archive holds no PNG or JPEG image.", _LAYOUT_HINT)
    notes = []
    if hidden:
        notes.append(f"Hidden files were ignored: {len(hidden):,}, such as {quoted(hidden[0])}.")
    if others:
        notes.append(f"Files that are no images were ignored: {len(others):,}, such as {quoted(others[0])}.")
    return images, notes


def _places(members: list[ZipInfo]) -> list[Place]:
    """What the folders say of each image. Raises InvalidData when they fit none of the layouts."""
    paths = [member.filename.split("/") for member in members]
    if len({path[0] for path in paths}) == 1 and min(map(len, paths)) >= 3:
        paths = [path[1:] for path in paths]
    loose = [member for member, path in zip(members, paths, strict=True) if len(path) == 1]
    if loose:
        errors = [_misplaced(member, "stands in no class folder") for member in loose]
        raise all_invalid(f"{len(loose):,} images stand in no class folder.", errors, _LAYOUT_HINT)
    splits = [SPLIT_NAMES.get(path[0].lower()) for path in paths]
    if all(split is None for split in splits):
        return [Place(member, _label(path[0]), None) for member, path in zip(members, paths, strict=True)]
    # Beside train and test, a folder of images without a label belongs to train.
    apart = [split is None and _label(path[0]) is None for path, split in zip(paths, splits, strict=True)]
    paths = [["train", *path] if alone else path for path, alone in zip(paths, apart, strict=True)]
    splits = [TRAIN if alone else split for split, alone in zip(splits, apart, strict=True)]
    stray = [
        member for member, path, split in zip(members, paths, splits, strict=True) if split is None or len(path) < 3
    ]
    if stray:
        errors = [_misplaced(member, "is not in a class folder below train, validation or test") for member in stray]
        raise all_invalid("Some images are in split folders, others are not.", errors, _LAYOUT_HINT)
    return [Place(member, _label(path[1]), split) for member, path, split in zip(members, paths, splits, strict=True)]


def _label(folder: str) -> str | None:
    return None if folder.lower() in _UNLABELLED_NAMES else plain(folder)


def _given(places: list[Place]) -> NDArray[np.uint8] | None:
    splits = [place.split for place in places if place.split is not None]
    return np.array(splits, np.uint8) if splits else None


def _outline(
    archive: ZipFile, place: Place, order: int, options: IngestOptions, limits: Limits, bad: BadRows
) -> Outline | None:
    try:
        if place.lacks_label(options):
            raise BadImage("empty_label", f"It has no label{_ONLY_TRAIN if options.unlabelled == 'keep' else ''}.")
        if place.member.file_size > MAX_IMAGE_BYTES:
            raise BadImage("too_many_pixels", f"The file is larger than the limit of {MAX_IMAGE_BYTES:,} bytes.")
        try:
            with archive.open(place.member) as file:
                return outline(file, limits)
        except BROKEN:
            raise _broken_member() from None
    except BadImage as error:
        _note_bad(bad, order, place, error)
        return None


def _bytes(archive: ZipFile, place: Place) -> bytes:
    try:
        data = archive.read(place.member)
    except BROKEN:
        raise _broken_member() from None
    if len(data) != place.member.file_size:
        raise _broken_member()
    return data


def _broken_member() -> BadImage:
    return BadImage("corrupt_member", "The archive holds it broken, or its size is not what it says.")


def _note_bad(bad: BadRows, order: int, place: Place, error: BadImage) -> None:
    name = place.member.filename
    bad.add(order, name, member_pointer(place.member), error.code, f"{quoted(name)}: {error.reason}")


def _is_hidden(name: str) -> bool:
    parts = name.split("/")
    return parts[0] == "__MACOSX" or any(part.startswith(".") for part in parts) or parts[-1] == "Thumbs.db"


def _head(archive: ZipFile, member: ZipInfo) -> bytes:
    try:
        with archive.open(member) as file:
            return file.read(_MAGIC_BYTES)
    except BROKEN:
        return b""


def _nested(member: ZipInfo) -> FieldError:
    detail = f"{quoted(member.filename)} is an archive."
    return FieldError(pointer=member_pointer(member), code="nested_archive", detail=detail)


def _misplaced(member: ZipInfo, where: str) -> FieldError:
    detail = f"{quoted(member.filename)} {where}."
    return FieldError(pointer=member_pointer(member), code="misplaced_image", detail=detail)
