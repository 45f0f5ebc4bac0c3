"""Arrays in an .npz: x (or images) and y (or labels), whole or one pair per split.

    x, y                                   the splits are made here
    x_train, y_train, x_test, y_test       splits given; also x_validation, x_val, x_valid, and train_x, train_images …
    classes                                optional: names of the classes 0, 1, 2 …

x of two axes is a table [N, F], x of three or four is images.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ingest.columns import DistinctTexts
from ingest.errors import BadRows
from ingest.labels import UNLABELLED, check_name, is_missing, make_classes, means_unlabelled, plain, too_many_classes
from ingest.npy import Array, read_array
from ingest.pixels import plan_pixels
from ingest.reading import Reading
from ingest.rows import RowSpool, Scratch
from ingest.splits import SPLIT_NAMES, TRAIN
from stillhouse.spec.archive import checked_archive, files
from stillhouse.spec.facts import Feature
from stillhouse.spec.limits import Limits
from stillhouse.spec.refusing import invalid, pointer, quoted, too_large
from stillhouse.spec.upload import IngestOptions

_X_NAMES = ("x", "images")
_Y_NAMES = ("y", "labels")
_FLOAT32_MAX = float(np.finfo(np.float32).max)
_NOT_FINITE = ("not_finite", "A value is NaN, infinite, or too large for 32-bit floats.")
_NAMES_HINT = "Save them with numpy.savez(path, x=…, y=…), or x_train=…, y_train=…, x_test=…, y_test=…."


Convert = Callable[[NDArray[Any]], tuple[NDArray[Any], NDArray[np.bool_]]]
"""From a block of x as saved to rows as stored, and a mask [n] of the rows that can be stored."""


@dataclass(frozen=True)
class Pair:
    """x and y of one split, or of all rows when there are no splits."""

    x: Array
    y: Array
    split: int | None


def read(path: Path, options: IngestOptions, limits: Limits, scratch: Scratch) -> Reading:
    """Read the arrays in the archive at `path`. Raises InvalidData or TooLarge."""
    with checked_archive(path, limits) as archive:
        pairs, named, notes = _arrays(archive, limits)
        _check_shapes(pairs)
        if len(pairs[0].x.shape) == 2:
            shape: tuple[int, ...] = pairs[0].x.shape[1:]
            _check_columns(shape[0], options, limits)
            convert: Convert = _as_floats
        else:
            pixels, shape, pixel_notes = plan_pixels([pair.x for pair in pairs], options, limits)
            convert = pixels.convert
            notes += pixel_notes
        labels = _Labels(pairs, named, limits, keep_unlabelled=options.unlabelled == "keep")
        rows = RowSpool(scratch, shape, np.float32 if len(shape) == 1 else np.uint8, limits)
        bad = BadRows(options.bad_rows)
        kept = _store(pairs, labels, convert, rows, bad)
    total = sum(pair.x.shape[0] for pair in pairs)
    bad.check(total)
    classes, class_of_code = labels.classes(kept)
    given = [np.full(pair.x.shape[0], pair.split, np.uint8) for pair in pairs if pair.split is not None]
    return Reading(
        task="tabular-classification" if len(shape) == 1 else "image-classification",
        rows=rows,
        labels=class_of_code[labels.codes[kept]],
        classes=classes,
        given=np.concatenate(given)[kept] if given else None,
        rows_read=total,
        bad=bad,
        features=tuple(Feature(name=f"x{i}") for i in range(shape[0])) if len(shape) == 1 else (),
        notes=notes,
    )


def _store(
    pairs: Sequence[Pair], labels: "_Labels", convert: Convert, rows: RowSpool, bad: BadRows
) -> NDArray[np.int64]:
    """Store the rows that can be, list the others. Returns the places [kept] of the stored rows among all."""
    kept = []
    place = 0
    for pair in pairs:
        start = place
        for block in pair.x.blocks():
            stored, finite = convert(block)
            known = labels.usable(pair, slice(place, place + len(block)))
            rows.append(stored[finite & known])
            for i in np.flatnonzero(~(finite & known)):
                index = place + int(i) - start
                if bad.wants_more:
                    code, reason = labels.why(pair, place + int(i)) if not known[i] else _NOT_FINITE
                    at = pointer("arrays", pair.x.name, index)
                    bad.add(place + int(i), f"{pair.x.name}[{index}]", at, code, reason)
                else:
                    bad.add_unnamed(1)
            kept.append(place + np.flatnonzero(finite & known))
            place += len(block)
    return np.concatenate(kept)


def _as_floats(block: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    values = block.astype(np.float64)
    finite = np.all(np.abs(values) <= _FLOAT32_MAX, axis=1)
    return np.where(finite[:, None], values, 0).astype(np.float32), finite


class _Labels:
    """The labels of all pairs, one after the other."""

    def __init__(
        self, pairs: Sequence[Pair], names: tuple[str, ...] | None, limits: Limits, *, keep_unlabelled: bool
    ) -> None:
        self._names, self._limits, self._at = names, limits, pairs[0].y.pointer
        self._keep_unlabelled = keep_unlabelled
        self._is_missing = means_unlabelled if keep_unlabelled else is_missing
        distinct = DistinctTexts(limits.max_classes)
        for pair in pairs:
            for block in pair.y.blocks():
                distinct.add(pa.array(_texts(pair.y, block.reshape(-1)), pa.string()))
                if distinct.index is None:
                    raise too_many_classes(pair.y.pointer, limits)
        self._texts = distinct.texts()
        missing = [self._is_missing(text) for text in self._texts]
        self._say_names = self._labels_say_names([t for t, none in zip(self._texts, missing, strict=True) if not none])
        by_code = [
            -1 if none or self._outside(text) else code
            for code, (text, none) in enumerate(zip(self._texts, missing, strict=True))
        ]
        self._all_codes = distinct.codes()
        self.codes = np.array([*by_code, -1], np.int64)[self._all_codes]
        """[N], -1 where the label cannot be used."""
        self._missing = np.array([*missing, True])[self._all_codes]

    def usable(self, pair: Pair, rows: slice) -> NDArray[np.bool_]:
        """[n]: True for rows with a label, and for training rows that may do without."""
        known = self.codes[rows] >= 0
        if self._keep_unlabelled and pair.split in (None, TRAIN):
            known |= self._missing[rows]
        return known

    def why(self, pair: Pair, place: int) -> tuple[str, str]:
        """Code and reason of a label that cannot be used."""
        text = self._texts[self._all_codes[place]] if self._all_codes[place] >= 0 else ""
        if self._is_missing(text):
            needed = ", and only a training row can do without" if self._keep_unlabelled else ""
            return "empty_label", f"The label in {pair.y.name} is missing{needed}."
        names = f"{len(self._names or ())} classes, by name or counted from 0"
        return "label_out_of_range", f"The label {quoted(text)} is none of the {names}."

    def classes(self, kept: NDArray[np.int64]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
        """Class names, and the class of each code."""
        used = {self._texts[code] for code in np.unique(self.codes[kept]) if code >= 0}
        if self._names is None:
            classes, index = make_classes(used, self._at, self._limits)
        else:
            make_classes(used, self._at, self._limits)  # for its checks
            classes, index = self._names, {text: self._class(text) for text in used}
        # Code −1, no label, takes the last.
        return classes, np.array([*(index.get(text, -1) for text in self._texts), UNLABELLED], np.int64)

    def _outside(self, text: str) -> bool:
        return self._names is not None and self._class(text) < 0

    def _class(self, text: str) -> int:
        """Index of a label among the given names: a number counts them, a text is one of them; −1 for neither."""
        names = self._names or ()
        if text.isascii() and text.isdigit() and len(text) < 10 and not self._say_names:
            return int(text) if int(text) < len(names) else -1
        return names.index(text) if text in names else -1

    def _labels_say_names(self, texts: list[str]) -> bool:
        """Whether all labels are names of classes, as 1, 2 and 3 are where the classes are called so.

        Raises InvalidData when they may just as well count the classes, and others would come of it.
        """
        named = [(self._names or ()).index(text) for text in texts if text in (self._names or ())]
        if len(named) < len(texts):
            return False
        self._say_names = False
        counted = [self._class(text) for text in texts]
        if counted != named and min(counted) >= 0:
            detail = "Array 'classes' has numbers for names: a label may be one of them, or count them from 0."
            hint = "Leave 'classes' out; the labels then name their classes themselves."
            raise invalid(pointer("arrays", "classes"), "unclear_arrays", detail, hint)
        return True


def _texts(array: Array, block: NDArray[Any]) -> list[str]:
    try:
        if array.dtype.kind == "S":
            return [text.decode("utf-8") for text in block.tolist()]
        if array.dtype.kind == "U":
            texts = block.tolist()
            "".join(texts).encode("utf-8")
            return [str(text) for text in texts]
    except ValueError:
        raise invalid(array.pointer, "bad_name", f"Array {quoted(array.name)} has text that is not Unicode.") from None
    if array.dtype.kind == "f":
        block = block.astype(np.float64)
    return [str(text) for text in pa.array(block).cast(pa.string()).to_pylist()]


def _arrays(archive: ZipFile, limits: Limits) -> tuple[list[Pair], tuple[str, ...] | None, list[str]]:
    """x and y by split, class names, notes. Raises InvalidData when the names do not tell what is what."""
    found: dict[tuple[str, int | None], Array] = {}
    classes: tuple[str, ...] | None = None
    ignored = []
    for member in sorted(files(archive), key=lambda m: m.filename):
        name = member.filename.removesuffix(".npy")
        role = _role(name)
        if name == "classes":
            classes = _class_names(read_array(archive, member, limits), limits)
        elif role is None or not member.filename.endswith(".npy"):
            ignored.append(member.filename)
        elif role in found:
            detail = f"Arrays {quoted(found[role].name)} and {quoted(name)} mean the same: keep one."
            raise invalid(pointer("arrays", name), "unclear_arrays", detail, _NAMES_HINT)
        else:
            found[role] = read_array(archive, member, limits)
    notes = [f"Arrays that were ignored: {', '.join(map(quoted, ignored[:5]))}."] if ignored else []
    return _pairs(found, ignored), classes, notes


def _role(name: str) -> tuple[str, int | None] | None:
    """What an array's name says: ("x" or "y", its split or None for all rows)."""
    words = name.lower().split("_")
    kinds = [word for word in words if word in _X_NAMES + _Y_NAMES]
    splits = [SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES]
    if len(kinds) != 1 or len(kinds) + len(splits) != len(words) or len(splits) > 1:
        return None
    return ("x" if kinds[0] in _X_NAMES else "y"), (splits[0] if splits else None)


def _pairs(found: dict[tuple[str, int | None], Array], ignored: Sequence[str]) -> list[Pair]:
    splits = sorted({split for _, split in found if split is not None})
    whole = any(split is None for _, split in found)
    if not found or (whole and splits):
        names = ", ".join(quoted(name) for name in [*(array.name for array in found.values()), *ignored][:10])
        detail = f"The arrays {names} are not x and y, nor one x and y for each split."
        raise invalid("/file", "unclear_arrays", detail, _NAMES_HINT)
    pairs = []
    for split in [None] if whole else splits:
        missing = [kind for kind in "xy" if (kind, split) not in found]
        if missing:
            other = next(array.name for (_, s), array in found.items() if s == split)
            detail = f"There is {quoted(other)} but no {missing[0]} beside it."
            raise invalid("/file", "unclear_arrays", detail, _NAMES_HINT)
        pairs.append(Pair(found["x", split], found["y", split], split))
    return pairs


def _check_shapes(pairs: Sequence[Pair]) -> None:
    first = pairs[0].x
    for pair in pairs:
        x, y = pair.x, pair.y
        if x.dtype.kind in "US":
            raise invalid(x.pointer, "unsupported_type", f"Array {quoted(x.name)} holds text; x must be numbers.")
        if len(x.shape) not in (2, 3, 4):
            detail = f"Array {quoted(x.name)} has shape {x.shape}; x needs 2 axes for a table, 3 or 4 for images."
            raise invalid(x.pointer, "bad_shape", detail)
        if x.shape[1:] != first.shape[1:]:
            detail = (
                f"Rows of {quoted(x.name)} have shape {x.shape[1:]}, those of {quoted(first.name)} {first.shape[1:]}."
            )
            raise invalid(x.pointer, "bad_shape", detail)
        if y.shape[1:] not in ((), (1,)):
            detail = f"Array {quoted(y.name)} has shape {y.shape}; y needs one label for each row."
            raise invalid(y.pointer, "bad_shape", detail, "From one-hot labels, take y.argmax(axis=1).")
        if x.shape[0] != y.shape[0]:
            detail = f"{quoted(x.name)} has {x.shape[0]:,} rows, {quoted(y.name)} {y.shape[0]:,}."
            raise invalid(y.pointer, "length_mismatch", detail)


def _check_columns(columns: int, options: IngestOptions, limits: Limits) -> None:
    if columns > limits.max_columns:
        detail = f"x has {columns:,} columns, the limit is {limits.max_columns:,}."
        raise too_large("/file", "too_many_columns", detail)
    if options.image_size is not None:
        detail = "image_size does nothing for a table; images have 3 or 4 axes."
        raise invalid("?image_size", "option_does_not_apply", detail)


def _class_names(array: Array, limits: Limits) -> tuple[str, ...]:
    if len(array.shape) != 1 or array.shape[0] > limits.max_classes:
        detail = f"Array 'classes' has shape {array.shape}; needed are up to {limits.max_classes:,} names in one axis."
        raise invalid(array.pointer, "bad_shape", detail)
    names = [plain(text) for block in array.blocks() for text in _texts(array, block)]
    for name in names:
        check_name(name, array.pointer, "class")
    if len(set(names)) < len(names):
        raise invalid(array.pointer, "duplicate_class", "Array 'classes' names a class twice.")
    return tuple(names)
