"""The stored dataset: one safetensors file, written by hand so that x never has to be in memory.

Layout (https://github.com/huggingface/safetensors#format): eight bytes of header length, a JSON header padded with
spaces to a multiple of eight, then the raw little-endian tensors y int64 [N], x [N, *shape], split uint8 [N]. The
widest type comes first, so every tensor is aligned. Equal data gives equal bytes.
"""

import json
import os
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ingest.rows import RowSpool
from stillhouse.spec.facts import StoredDataset

_DTYPES = {"float32": "F32", "uint8": "U8"}


def write(
    path: Path,
    partial: Path,
    dataset: StoredDataset,
    rows: RowSpool,
    labels: NDArray[np.int64],
    split: NDArray[np.uint8],
) -> None:
    """Write the stored dataset at `partial` and, once it is durable, name it `path`. Raises OSError."""
    partial.unlink(missing_ok=True)
    try:
        with partial.open("xb") as file:
            file.write(_header(dataset, rows))
            file.write(labels.astype("<i8").tobytes())
            rows.copy_to(file)
            file.write(split.tobytes())
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    _make_durable(path.parent)


def _header(dataset: StoredDataset, rows: RowSpool) -> bytes:
    n = rows.count
    y_end, x_end = 8 * n, 8 * n + rows.nbytes
    entries = {
        "__metadata__": {"stillhouse": dataset.model_dump_json()},
        "y": _tensor("I64", [n], 0, y_end),
        "x": _tensor(_DTYPES[rows.dtype.name], [n, *rows.shape], y_end, x_end),
        "split": _tensor("U8", [n], x_end, x_end + n),
    }
    text = json.dumps(entries, separators=(",", ":")).encode("ascii")
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def _tensor(dtype: str, shape: list[int], start: int, end: int) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def _make_durable(folder: Path) -> None:
    """A rename is safe from a power cut only once the folder is."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
