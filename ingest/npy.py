"""One array of an .npz archive: its header checked, its numbers read in blocks, nothing ever unpickled.

Format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

import math
import tokenize
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any
from zipfile import ZipFile, ZipInfo

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from stillhouse.spec.archive import BROKEN
from stillhouse.spec.limits import Limits
from stillhouse.spec.refusing import invalid, pointer, quoted, too_large

_BLOCK_BYTES = 8 * 1024**2
_HEADER_READERS = {(1, 0): npy_format.read_array_header_1_0, (2, 0): npy_format.read_array_header_2_0}
_BAD_HEADER = (*BROKEN, SyntaxError, TypeError, KeyError, IndexError, AttributeError, tokenize.TokenError)
_KINDS = frozenset("biufUS")
_CORRUPT_HINT = "Is the upload complete? Save it anew with numpy.savez."


@dataclass(frozen=True)
class Array:
    """An array whose header has passed; its numbers are still packed."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    _archive: ZipFile
    _member: ZipInfo
    _fortran: bool
    _offset: int

    @property
    def pointer(self) -> str:
        """Where it stands in the upload."""
        return pointer("arrays", self.name)

    def blocks(self) -> Iterator[NDArray[Any]]:
        """Yield [n, *shape[1:]] of this machine's byte order, in order. Raises InvalidData when they are broken."""
        try:
            with self._archive.open(self._member) as file:
                file.read(self._offset)
                for block in self._whole(file) if self._fortran else self._slices(file):
                    yield block.astype(self.dtype.newbyteorder("="), copy=False)
        except BROKEN:
            raise _corrupt(self.name, "it is broken or not complete") from None

    def _slices(self, file: IO[bytes]) -> Iterator[NDArray[Any]]:
        row_bytes = math.prod(self.shape[1:]) * self.dtype.itemsize
        size = max(1, _BLOCK_BYTES // row_bytes)
        for start in range(0, self.shape[0], size):
            rows = min(size, self.shape[0] - start)
            yield np.frombuffer(_exactly(file, rows * row_bytes), self.dtype).reshape(rows, *self.shape[1:])

    def _whole(self, file: IO[bytes]) -> Iterator[NDArray[Any]]:
        """Column order has the first row's numbers all over the file, so all of it comes at once."""
        data = _exactly(file, math.prod(self.shape) * self.dtype.itemsize)
        yield np.frombuffer(data, self.dtype).reshape(self.shape, order="F")


def read_array(archive: ZipFile, member: ZipInfo, limits: Limits) -> Array:
    """The array in `member`, an .npy file. Raises InvalidData for anything but numbers, truth values and text."""
    name = member.filename.removesuffix(".npy")
    try:
        with archive.open(member) as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about files of Python 2, which read well
            version = npy_format.read_magic(file)
            reader = _HEADER_READERS.get(version)
            if reader is None:
                raise ValueError
            shape, fortran, dtype = reader(file)
            offset = file.tell()
    except _BAD_HEADER:
        raise _corrupt(name, "its header is broken") from None
    _check_dtype(name, dtype)
    if any(isinstance(side, bool) or side < 0 for side in shape):
        raise _corrupt(name, "its header is broken")
    if math.prod(shape) * dtype.itemsize != member.file_size - offset:
        raise _corrupt(name, "its size is not what its header says")
    if shape and shape[0] > limits.max_rows:
        detail = f"Array {quoted(name)} has {shape[0]:,} rows, the limit is {limits.max_rows:,}."
        raise too_large(pointer("arrays", name), "too_many_rows", detail)
    if not shape or 0 in shape:
        raise invalid(pointer("arrays", name), "bad_shape", f"Array {quoted(name)} of shape {shape} holds no row.")
    return Array(name, shape, dtype, archive, member, fortran and len(shape) > 1, offset)


def _check_dtype(name: str, dtype: np.dtype[Any]) -> None:
    if dtype.hasobject:
        detail = f"Array {quoted(name)} holds Python objects, which would have to be unpickled; that is never done."
        hint = "Turn it into numbers or text with .astype(float) or .astype(str) before numpy.savez."
        raise invalid(pointer("arrays", name), "object_array", detail, hint)
    if dtype.kind not in _KINDS or dtype.itemsize == 0 or dtype.shape:
        detail = f"Array {quoted(name)} is of type {dtype}; read are numbers, truth values and text."
        raise invalid(pointer("arrays", name), "unsupported_type", detail)


def _exactly(file: IO[bytes], size: int) -> bytes:
    data = file.read(size)
    if len(data) != size:
        raise EOFError
    return data


def _corrupt(name: str, what: str) -> Exception:
    return invalid(pointer("arrays", name), "corrupt_member", f"Array {quoted(name)}: {what}.", _CORRUPT_HINT)
