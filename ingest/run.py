"""One upload, from bytes to the stored dataset: the page to read first."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from ingest import builtin, csv_reader, folder_reader, jsonl_reader, npz_reader, parquet_reader, stored_file
from ingest.reading import Reading
from ingest.report import describe
from ingest.rows import Scratch
from ingest.sniff import sniff
from ingest.splits import assign_splits
from stillhouse.spec.limits import Limits
from stillhouse.spec.refusing import invalid
from stillhouse.spec.upload import IngestOptions, IngestRequest, StoredUpload, UploadFormat

Format = UploadFormat | Literal["builtin"]

_READERS: dict[str, Callable[[Path, IngestOptions, Limits, Scratch], Reading]] = {
    "csv": csv_reader.read,
    "jsonl": jsonl_reader.read,
    "parquet": parquet_reader.read,
    "npz": npz_reader.read,
    "zip": folder_reader.read,
}
_FOR_TABLES = ("label", "split_column", "ignore")
_FOR_IMAGES = ("image_size",)
_DO_NOT_APPLY: dict[Format, tuple[str, ...]] = {
    "csv": _FOR_IMAGES,
    "jsonl": _FOR_IMAGES,
    "parquet": (),  # tables or images: its reader knows
    "npz": _FOR_TABLES,
    "zip": _FOR_TABLES,
    "builtin": (*_FOR_TABLES, *_FOR_IMAGES),
}
_KINDS: dict[Format, str] = {
    "csv": "a table",
    "jsonl": "a table",
    "parquet": "Parquet",
    "npz": "arrays",
    "zip": "a ZIP of images",
    "builtin": "data that comes with the service",
}


def run(request: IngestRequest) -> StoredUpload:
    """Read, check, split, describe and store one upload.

    Raises InvalidData, TooLarge or UnsupportedMedia with a pointer for everything that is wrong, OSError when the
    disk fails, MemoryError at the limit. The output appears whole or not at all.
    """
    output = Path(request.output)
    found = "builtin" if request.source is None else sniff(Path(request.source), request.format, request.limits)
    _check_options(request.options, found, request.limits)
    with Scratch(output.parent) as scratch:
        reading = _read(request, found, scratch)
        groups = reading.rows.groups()
        splits = assign_splits(reading.labels, groups, reading.given, reading.classes, request.options)
        dataset = describe(reading, splits, groups)
        stored_file.write(output, Path(request.partial), dataset, reading.rows, reading.labels, splits.of_row)
    return StoredUpload(format=found, dataset=dataset)


def _read(request: IngestRequest, found: Format, scratch: Scratch) -> Reading:
    if found == "builtin" or request.source is None:
        return builtin.read_digits(request.options, request.limits, scratch)
    return _READERS[found](Path(request.source), request.options, request.limits, scratch)


def _check_options(options: IngestOptions, found: Format, limits: Limits) -> None:
    """An option that would do nothing is a mistake of the caller."""
    for name in _DO_NOT_APPLY[found]:
        if getattr(options, name) not in (None, ()):
            raise invalid(f"?{name}", "option_does_not_apply", f"{name} does nothing for {_KINDS[found]}.")
    if options.image_size is not None and options.image_size > limits.max_image_side:
        detail = f"An image side of {options.image_size} pixels is more than the limit of {limits.max_image_side}."
        raise invalid("?image_size", "over_limit", detail)
