"""Tensors of a safetensors file as they lie on disk: mapped read-only, so a file may be larger than memory.

The library's own reader maps files as private and writable memory, which the kernel refuses beyond the memory there
is, and counts every page that was ever read as the process's own. Here pages are the kernel's to keep or drop; asked
for in advance, they are read together instead of one fault after the other.
https://github.com/huggingface/safetensors#format
"""

import json
import math
import mmap
import struct
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_DTYPES = {
    "U8": torch.uint8,
    "F32": torch.float32,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
}
_LONGEST_HEADER = 100_000_000
# Pages looked at stay in the count of this process until they are given back, which costs a fault on the next look.
_KEPT_BYTES = 128 * 2**20
# A fault brings in the pages around it as far as they are in memory already.
_AROUND_A_FAULT = 64 * 1024


class Mapping:
    """The mapping of one file. Forked processes share it; it ends with the last tensor over it."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self.pages = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)

    def header(self) -> tuple[dict[str, Any], int]:
        """The entries of the header, and where the tensors begin. Raises ValueError when it is none."""
        if len(self.pages) < 8:
            raise ValueError("the file is shorter than a header")
        (length,) = struct.unpack("<Q", self.pages[:8])
        if length > min(_LONGEST_HEADER, len(self.pages) - 8):
            raise ValueError("the header is longer than the file")
        found = json.loads(self.pages[8 : 8 + length])
        if not isinstance(found, dict):
            raise ValueError("the header is no object")
        return found, 8 + length

    def tensor(self, entry: Any, start: int) -> tuple[Tensor, int]:
        """The tensor an entry describes, never to be written to, and its place in the file.

        Raises ValueError when the entry is wrong.
        """
        try:
            dtype, shape = _DTYPES[entry["dtype"]], tuple(map(int, entry["shape"]))
            first, end = map(int, entry["data_offsets"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError("an entry of the header is incomplete") from error
        numbers = math.prod(shape)
        fits = 0 <= first <= end <= len(self.pages) - start and end - first == numbers * dtype.itemsize
        if not fits or min(shape, default=0) < 0 or (start + first) % dtype.itemsize:
            raise ValueError("an entry of the header does not fit the file")
        if numbers == 0:
            return torch.empty(shape, dtype=dtype), start + first
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The given buffer is not writable")
            flat = torch.frombuffer(self.pages, dtype=dtype, count=numbers, offset=start + first)
        return flat.view(shape), start + first


class Rows:
    """Rows of a mapped tensor x [N, …], gathered without holding more of the file than a little."""

    def __init__(self, mapping: Mapping, x: Tensor, start: int) -> None:
        self.x, self._pages, self._start = x, mapping.pages, start
        self._row_bytes = x[0].nbytes if len(x) else 0
        self._looked_at = 0
        self._large = x.nbytes > _KEPT_BYTES

    def gather(self, rows: Tensor) -> Tensor:
        """x[rows], `rows` int64 [n] on the CPU."""
        if not self._large:
            return self.x[rows]
        self._ask_for(rows)
        picked = self.x[rows]
        self._looked_at += len(rows) * (self._row_bytes + _AROUND_A_FAULT)
        if self._looked_at > _KEPT_BYTES:
            self._pages.madvise(mmap.MADV_DONTNEED)
            self._looked_at = 0
        return picked

    def _ask_for(self, rows: Tensor) -> None:
        """Tell the kernel which pages are about to be read, in the order of the disk, neighbours in one."""
        first = (self._start + rows.sort().values * self._row_bytes) // mmap.PAGESIZE
        pages = (self._row_bytes - 1) // mmap.PAGESIZE + 2
        breaks = (first.diff() > pages).nonzero().flatten()
        begins = torch.cat([first[:1], first[breaks + 1]]).tolist()
        ends = torch.cat([first[breaks], first[-1:]]).tolist()
        for begin, end in zip(begins, ends, strict=True):
            offset = begin * mmap.PAGESIZE
            length = min((end + pages) * mmap.PAGESIZE, len(self._pages)) - offset
            self._pages.madvise(mmap.MADV_WILLNEED, offset, length)
