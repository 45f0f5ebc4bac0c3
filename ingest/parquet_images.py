"""Images in Parquet, as Hugging Face writes them: a column of PNG or JPEG bytes, bare or as {bytes, path}, and a label.

Names of classes come from the `huggingface` entry of the schema (ClassLabel), when there is one. Every image is looked
at twice, for its size and for its pixels, so the file is read twice and never held.
https://huggingface.co/docs/datasets/main/en/about_dataset_features
"""

import io
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ingest.columns import DistinctTexts
from ingest.errors import BadRows
from ingest.images import IMAGE_MAGICS, MAX_IMAGE_BYTES, BadImage, Outline, common_size, decode, outline
from ingest.labels import UNLABELLED, check_name, is_missing, make_classes, means_unlabelled, too_many_classes
from ingest.parquet_file import as_text, corrupt, is_number, is_text, open_file
from ingest.reading import Reading
from ingest.rows import RowSpool, Scratch
from ingest.splits import SPLIT_NAMES, TRAIN
from ingest.table import Roles, assign_roles
from stillhouse.spec.errors import FieldError
from stillhouse.spec.limits import Limits
from stillhouse.spec.refusing import all_invalid, invalid, pointer, quoted, some, too_large
from stillhouse.spec.upload import LABEL_NAMES, IngestOptions

_BLOCK_BYTES = 16 * 1024**2
_BLOCK_ROWS = 1024
_LOOKED_AT = 64
_OUTSIDE = -2


def image_column(path: Path, footer: Any, schema: Any, options: IngestOptions) -> int | None:
    """Position of the column that holds images; None: the file is a table. Raises InvalidData for several.

    {bytes, …} is what an image is written as. A bare column of bytes may be anything, so a few of them are looked at.
    """
    found = [
        i
        for i, field in enumerate(schema)
        if field.name not in options.ignore
        and (_is_nested(field.type) or (_is_binary(field.type) and _begins_with_images(path, footer, field.name)))
    ]
    if len(found) > 1:
        names = [schema.field(i).name for i in found]
        detail = f"Columns {some([quoted(name) for name in names])} all hold images: a row has one."
        raise invalid(
            pointer("columns", names[1]), "several_image_columns", detail, "Leave the others out with ignore."
        )
    return found[0] if found else None


def read_images(
    path: Path, footer: Any, schema: Any, column: int, options: IngestOptions, limits: Limits, scratch: Scratch
) -> Reading:
    """Read the images at `path`. Raises InvalidData or TooLarge; what arrow raises on a broken file passes through."""
    class_names, notes = _class_names(schema)
    roles = assign_roles(schema.names, _with_label(options, schema.names, class_names))
    _check_types(schema, roles)
    cells = _Cells(path, footer, schema, column, roles, limits)
    bad = BadRows(options.bad_rows)

    outlines: list[Outline | None] = []
    labels = _Labels(class_names.get(schema.field(roles.label).name), options, limits)
    splits = DistinctTexts(len(SPLIT_NAMES) + 100)
    for start, images, label, split in cells.blocks():
        labels.add(label)
        if split is not None:
            splits.add(split)
        outlines += [_outline(image, start + i, limits, bad) for i, image in enumerate(images)]
    if not outlines:
        raise invalid("/file", "no_rows", "There is a schema but no row.")

    given = _given(splits, len(outlines)) if roles.split is not None else None
    label_column = schema.field(roles.label).name
    for row in range(len(outlines)):
        if outlines[row] is not None and (why := labels.why_not(row, label_column, given)):
            _note_bad(bad, row + 1, BadImage(*why))
            outlines[row] = None
    known = [found for found in outlines if found is not None]
    if not known:
        bad.check(len(outlines))
    height, width, size_notes = common_size(known, options, limits)
    gray = all(found.gray for found in known)

    rows = RowSpool(scratch, (1 if gray else 3, height, width), np.uint8, limits)
    kept, changes = [], Counter[str]()
    for start, images, _, _ in cells.blocks():
        for number, image in enumerate(images, start):
            if outlines[number - 1] is None:
                continue
            try:
                picture = decode(image or b"", gray=gray, height=height, width=width, limits=limits)
            except BadImage as error:
                _note_bad(bad, number, error)
                continue
            rows.append(picture.pixels[None])
            kept.append(number - 1)
            changes.update(picture.changes)
    bad.check(len(outlines))
    classes, of_row = labels.classes(kept, pointer("columns", label_column))
    notes += [*_unread(schema, column, roles, options), *size_notes]
    notes += [f"Images that were {change}: {n:,}." for change, n in changes.items()]
    return Reading(
        task="image-classification",
        rows=rows,
        labels=of_row,
        classes=classes,
        given=None if given is None else given[kept].astype(np.uint8),
        rows_read=len(outlines),
        bad=bad,
        notes=notes,
    )


@dataclass(frozen=True)
class _Cells:
    """The columns in use, read anew each time."""

    path: Path
    footer: Any
    schema: Any
    column: int
    roles: Roles
    limits: Limits

    def blocks(self) -> Iterator[tuple[int, list[bytes | None], Any, Any | None]]:
        """(1-based number of the first row, images, labels as text, splits as text or None), a few rows at a time."""
        name = self.schema.field(self.column).name
        leaf = f"{name}.bytes" if pa.types.is_struct(self.schema.field(self.column).type) else name
        used = [leaf, *(self._name(role) for role in (self.roles.label, self.roles.split) if role is not None)]
        # A dictionary stays one: a page that repeats one image a million times unfolds to very little.
        with open_file(self.path, metadata=self.footer, read_dictionary=used) as file:
            first, unpacked = 1, 0
            for batch in self._batches(file, self._block_rows(leaf), used):
                batch.validate(full=True)  # offsets and indices come from the file, and nothing else checks them
                images = _bytes(batch.column(batch.schema.get_field_index(name)))
                unpacked += sum(len(image) for image in images if image is not None)
                if unpacked > self.limits.max_expanded_bytes:
                    detail = f"The images unfold to more than the limit of {self.limits.max_expanded_bytes:,} bytes."
                    raise too_large("/file", "too_many_bytes", detail)
                label, split = (self._texts(batch, role) for role in (self.roles.label, self.roles.split))
                yield first, images, label, split
                first += batch.num_rows
            if first - 1 != self.footer.num_rows:
                raise corrupt(f"the footer says {self.footer.num_rows:,} rows, there are {first - 1:,}")

    def _batches(self, file: Any, rows: int, columns: list[str]) -> Iterator[Any]:
        """Blocks that lie within a row group: across two, arrow cannot join the dictionaries of a nested column."""
        for group in range(self.footer.num_row_groups):
            yield from file.iter_batches(rows, row_groups=[group], columns=columns, use_threads=False)

    def _texts(self, batch: Any, role: int | None) -> Any:
        return None if role is None else as_text(batch.column(batch.schema.get_field_index(self._name(role))))

    def _name(self, role: int | None) -> str:
        return str(self.schema.field(role).name)

    def _block_rows(self, leaf: str) -> int:
        """Rows of about 16 MB of images, as far as the footer tells."""
        groups = [self.footer.row_group(i) for i in range(self.footer.num_row_groups)]
        chunks = [group.column(i) for group in groups for i in range(group.num_columns)]
        size = sum(max(0, chunk.total_uncompressed_size) for chunk in chunks if chunk.path_in_schema == leaf)
        return max(1, min(_BLOCK_ROWS, int(_BLOCK_BYTES * self.footer.num_rows) // max(1, int(size))))


class _Labels:
    """The labels of all rows, and what becomes of them."""

    def __init__(self, names: tuple[str, ...] | None, options: IngestOptions, limits: Limits) -> None:
        if names is not None and len(names) > limits.max_classes:
            raise too_many_classes("?label", limits)
        self._names, self._limits = names, limits
        self._keep = options.unlabelled == "keep"
        self._distinct = DistinctTexts(limits.max_classes)
        self._class_of: NDArray[np.int64] | None = None

    def add(self, texts: Any) -> None:
        """Add a block of labels, as text."""
        self._distinct.add(texts)
        if self._distinct.index is None:
            raise too_many_classes("?label", self._limits)

    def why_not(self, row: int, column: str, given: NDArray[np.int64] | None) -> tuple[str, str] | None:
        """Code and reason when the row (from 0) cannot be used for its label or its split."""
        if self._class_of is None:
            self._codes, self._texts = self._distinct.codes(), self._distinct.texts()
            self._class_of = np.array([*map(self._class, self._texts), UNLABELLED], np.int64)
        if given is not None and given[row] < 0:
            return "bad_split", "The split column says none of train, validation (or val, valid), test."
        found = self._class_of[self._codes[row]]
        if found == _OUTSIDE:
            text = quoted(self._texts[self._codes[row]])
            names = f"{len(self._names or ())} classes, by name or counted from 0"
            return "label_out_of_range", f"The label {text} is none of the {names}."
        if found == UNLABELLED and not (self._keep and (given is None or given[row] == TRAIN)):
            needed = ", and only a training row can do without" if self._keep else ""
            return "empty_label", f"The label, column {quoted(column)}, is empty{needed}."
        return None

    def classes(self, kept: list[int], at: str) -> tuple[tuple[str, ...], NDArray[np.int64]]:
        """Class names, and the class of each kept row."""
        assert self._class_of is not None
        used = {code for code in np.unique(self._codes[kept]) if self._class_of[code] >= 0}
        classes, index = make_classes({self._texts[code] for code in used}, at, self._limits)
        if self._names is not None:
            return self._names, self._class_of[self._codes[kept]]
        of_code = [index.get(text, UNLABELLED) for text in self._texts]
        return classes, np.array([*of_code, UNLABELLED], np.int64)[self._codes[kept]]

    def _class(self, text: str) -> int:
        """Index among the given names (else 0), UNLABELLED or _OUTSIDE."""
        if means_unlabelled(text) if self._keep or self._names is not None else is_missing(text):
            return UNLABELLED
        if self._names is None:
            return 0
        if text.isascii() and text.isdigit() and len(text) < 10:
            return int(text) if int(text) < len(self._names) else _OUTSIDE
        return self._names.index(text) if text in self._names else _OUTSIDE


def _is_nested(kind: Any) -> bool:
    return pa.types.is_struct(kind) and any(field.name == "bytes" and _is_binary(field.type) for field in kind)


def _begins_with_images(path: Path, footer: Any, name: str) -> bool:
    with open_file(path, metadata=footer, read_dictionary=[name]) as file:
        for batch in file.iter_batches(_LOOKED_AT, columns=[name], use_threads=False):
            batch.validate(full=True)
            return any(cell is not None and cell.startswith(IMAGE_MAGICS) for cell in _bytes(batch.column(0)))
    return False


def _is_binary(kind: Any) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _bytes(column: Any) -> list[bytes | None]:
    """The images of a block; None where there is none. `flatten` hides the children of a null struct."""
    if pa.types.is_struct(column.type):
        column = column.flatten()[column.type.get_field_index("bytes")]
    return [cell.as_py() for cell in column]


def _with_label(options: IngestOptions, names: list[str], class_names: dict[str, Any]) -> IngestOptions:
    """With no label named and none found by its name, the only ClassLabel is it."""
    if options.label is None and len(class_names) == 1 and not {name.lower() for name in names} & {*LABEL_NAMES}:
        return options.model_copy(update={"label": next(iter(class_names))})
    return options


def _check_types(schema: Any, roles: Roles) -> None:
    for role in (roles.label, roles.split):
        if role is not None and not (is_number(schema.field(role).type) or is_text(schema.field(role).type)):
            name, kind = schema.field(role).name, schema.field(role).type
            detail = f"Column {quoted(name)} is of type {kind}; a label is text or a whole number."
            error = FieldError(pointer=pointer("columns", name), code="unsupported_type", detail=detail)
            raise all_invalid(detail, [error])


def _class_names(schema: Any) -> tuple[dict[str, tuple[str, ...]], list[str]]:
    """Column → its class names, from what the `datasets` library writes into the schema; and a note if it is broken."""
    raw = (schema.metadata or {}).get(b"huggingface")
    if raw is None:
        return {}, []
    try:
        features = json.loads(raw)["info"]["features"]
        found = {
            str(column): tuple(map(str, feature["names"]))
            for column, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and feature.get("names")
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}, ["What the file says of its features (huggingface) could not be read; classes are named by number."]
    found = {column: names for column, names in found.items() if column in schema.names}
    for column, names in found.items():
        for name in names:
            check_name(name, pointer("columns", column), "class")
        if len(set(names)) < len(names):
            detail = f"Column {quoted(column)} names a class twice."
            raise invalid(pointer("columns", column), "duplicate_class", detail)
    return found, []


def _given(splits: DistinctTexts, rows: int) -> NDArray[np.int64]:
    """[N]: index into SPLITS; -1 where the text is none."""
    if splits.index is None:
        return np.full(rows, -1)
    by_code = [SPLIT_NAMES.get(text.lower(), -1) for text in splits.texts()]
    return np.array([*by_code, -1], np.int64)[splits.codes()]


def _outline(image: bytes | None, number: int, limits: Limits, bad: BadRows) -> Outline | None:
    try:
        if image is None:
            raise BadImage("empty_cell", "There is no image. (A file's name is not enough: write the bytes.)")
        if len(image) > MAX_IMAGE_BYTES:
            raise BadImage("too_many_pixels", f"The image is larger than the limit of {MAX_IMAGE_BYTES:,} bytes.")
        return outline(io.BytesIO(image), limits)
    except BadImage as error:
        _note_bad(bad, number, error)
        return None


def _note_bad(bad: BadRows, number: int, error: BadImage) -> None:
    bad.add(number, str(number), pointer("rows", number), error.code, f"Row {number}: {error.reason}")


def _unread(schema: Any, column: int, roles: Roles, options: IngestOptions) -> list[str]:
    used = {column, roles.label, roles.split}
    names = [quoted(f.name) for i, f in enumerate(schema) if i not in used and f.name not in options.ignore]
    return [f"Columns beside image and label were left out: {some(names)}."] if names else []
