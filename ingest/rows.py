"""The rows of x on their way to the stored file: kept on disk, so that memory does not grow with the data."""

import tempfile
from contextlib import ExitStack
from hashlib import blake2b
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from stillhouse.spec.limits import Limits
from stillhouse.spec.refusing import too_large

_COPY_BYTES = 8 * 1024**2


class Scratch(ExitStack):
    """Files without a name in a folder: a killed reader leaves nothing behind, an ended one closes them here."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def file(self) -> IO[bytes]:
        """A new one, open for writing and reading."""
        return self.enter_context(tempfile.TemporaryFile(dir=self._folder))


class RowSpool:
    """Rows [N, *shape], written in order to a scratch file, with a digest of each."""

    def __init__(
        self, scratch: Scratch, shape: tuple[int, ...], dtype: type[np.uint8 | np.float32], limits: Limits
    ) -> None:
        self.shape = shape
        self.dtype = np.dtype(dtype)
        self.count = 0
        self._limits = limits
        self._row_bytes = int(np.prod(shape, dtype=object)) * self.dtype.itemsize
        self._file = scratch.file()
        self._digests: list[bytes] = []
        self._low: NDArray[Any] | None = None
        self._high: NDArray[Any] | None = None

    def append(self, x: NDArray[Any]) -> None:
        """Add rows [n, *shape]. Raises TooLarge at the limits of rows and stored bytes."""
        if len(x) == 0:
            return
        # -0.0 equals 0.0 but differs in its bytes: one form, so that equal rows have equal digests.
        x = np.ascontiguousarray(x + self.dtype.type(0) if self.dtype.kind == "f" else x, self.dtype)
        self.count += len(x)
        _check_size(self.count, self._row_bytes, self._limits)
        data = x.reshape(-1).view(np.uint8).data
        self._digests.append(b"".join(_digest(data, i, self._row_bytes) for i in range(len(x))))
        self._file.write(data)
        if self.dtype.kind == "f":
            self._widen_range(x)

    def groups(self) -> NDArray[np.int64]:
        """[N]: rows with identical x share a number. Numbers follow the order of first appearance."""
        digests = np.frombuffer(b"".join(self._digests), "<u8").reshape(-1, 2)
        order = np.lexsort((digests[:, 1], digests[:, 0]))  # stable: within a group the first row comes first
        ordered = digests[order]
        starts = np.ones(len(order), bool)
        starts[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
        group = np.cumsum(starts) - 1
        first_rows = order[starts]
        rank = np.empty(len(first_rows), np.int64)
        rank[np.argsort(first_rows)] = np.arange(len(first_rows))
        groups = np.empty(len(order), np.int64)
        groups[order] = rank[group]
        return groups

    def copy_to(self, file: IO[bytes]) -> None:
        """Write all rows, little-endian, row after row."""
        self._file.seek(0)
        while block := self._file.read(_COPY_BYTES):
            file.write(block)

    def constant_inputs(self) -> NDArray[np.bool_]:
        """[F] of a table: True where every row has the same value."""
        if self._low is None or self._high is None:
            return np.zeros(self.shape, bool)
        return np.asarray(self._low == self._high, bool)

    def _widen_range(self, x: NDArray[Any]) -> None:
        low, high = x.min(axis=0), x.max(axis=0)
        self._low = low if self._low is None else np.minimum(self._low, low)
        self._high = high if self._high is None else np.maximum(self._high, high)

    @property
    def nbytes(self) -> int:
        """Bytes of all rows."""
        return self.count * self._row_bytes


def _digest(data: memoryview, row: int, size: int) -> bytes:
    return blake2b(data[row * size : (row + 1) * size], digest_size=16).digest()


def _check_size(rows: int, row_bytes: int, limits: Limits) -> None:
    if rows > limits.max_rows:
        raise too_large("/file", "too_many_rows", f"The file has more than the limit of {limits.max_rows:,} rows.")
    if rows * row_bytes > limits.max_expanded_bytes:
        detail = (
            f"Stored, the rows take more than the limit of {limits.max_expanded_bytes:,} bytes "
            f"({row_bytes:,} bytes each)."
        )
        raise too_large("/file", "too_many_bytes", detail, "Upload fewer rows, fewer columns or smaller images.")
