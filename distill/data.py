"""A stored dataset: its rows where they lie on disk, labels and splits in memory.

An epoch's order is a permutation of all rows, so a batch is spread over the whole file; its pages are asked for in the
order of the disk, all at once, before they are copied. Shuffling blocks instead would read less but show every epoch
the same neighbours.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from distill.mapped import Mapping, Rows
from stillhouse.spec import SPLITS, DataFacts, DataReport, StoredDataset
from stillhouse.spec.errors import JobFailure
from stillhouse.spec.facts import Split

_CHUNK_NUMBERS = 2**17  # half a megabyte of float32; the layers of a network make many times as much of it

HELD_OUT: tuple[Split, ...] = ("validation", "test")


@dataclass(frozen=True)
class Dataset:
    """`x` uint8 [N, C, H, W] or float32 [N, F], `y` int64 [N] (-1: no label), `rows` int64 [n] for each split."""

    facts: DataFacts
    report: DataReport
    x: Tensor
    y: Tensor
    rows: dict[Split, Tensor]
    mapped: Rows | None = None
    """Where x lies on disk and not in memory: the way to its rows."""

    def labelled(self) -> "Dataset":
        """The same data without the training rows that have no label: what trains on labels alone sees this."""
        if not self.facts.unlabelled:
            return self
        train = self.rows["train"]
        return replace(self, rows={**self.rows, "train": train[self.y[train] >= 0]})

    def to(self, device: torch.device) -> "Dataset":
        """The same data on `device`: rows are picked there, so no batch travels."""
        if device == self.x.device:
            return self
        rows = {split: index.to(device) for split, index in self.rows.items()}
        return Dataset(self.facts, self.report, self.x.to(device), self.y.to(device), rows)

    def chunks(self, split: Split, *, most: int = 1024) -> list[Tensor]:
        """Row numbers of `split` in order, cut so that what a network makes of one chunk stays small.

        A power of two between 8 and `most`: 32 rows of 32×32 pixels in colour.
        """
        return self.cut(self.rows[split], most=most)

    def cut(self, rows: Tensor, *, most: int = 1024) -> list[Tensor]:
        """Any row numbers, cut like that."""
        return list(torch.split(rows, chunk_rows(self.facts.inputs, most=most)))

    @property
    def held_out(self) -> Tensor:
        """Row numbers of what nothing is trained on: the validation split, then the test split."""
        return torch.cat([self.rows[split] for split in HELD_OUT])

    def gather(self, rows: Tensor) -> Tensor:
        """Raw values of these rows, as they are stored."""
        if self.mapped is None or self.mapped.x is not self.x:  # replaced, moved, or made in memory
            return self.x[rows]
        return self.mapped.gather(rows)

    def inputs(self, rows: Tensor) -> Tensor:
        """Raw values of these rows as float32: what a network takes."""
        return self.gather(rows).float()

    @cached_property
    def white(self) -> float:
        """The brightest value of images: 255, or the greatest of the training split where it has fewer than 8 bits."""
        greatest = max(float(self.gather(rows).max()) for rows in self.chunks("train"))
        return greatest if 0 < greatest < 128 else 255.0


def chunk_rows(numbers: int, *, most: int = 1024) -> int:
    """Rows of so many numbers that are passed over at once: a power of two between 8 and `most`."""
    rows = max(8, _CHUNK_NUMBERS // numbers)
    return min(most, 1 << (rows.bit_length() - 1))


def read_dataset(path: Path) -> Dataset:
    """Read a stored dataset file. The big tensor stays mapped, so only pages in use take memory.

    Raises JobFailure `dataset_unusable` when the file is not one, or its tensors contradict its own header.
    """
    try:
        mapping = Mapping(path)
        entries, start = mapping.header()
        header = StoredDataset.model_validate_json(entries["__metadata__"]["stillhouse"])
        x, place = mapping.tensor(entries["x"], start)
        y, split = (mapping.tensor(entries[name], start)[0].clone() for name in ("y", "split"))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise unusable(
            "The stored dataset could not be read: it is missing, cut short or not a dataset file."
        ) from error
    if contradiction := _contradiction(header.facts, x, y, split):
        raise unusable(f"The stored dataset contradicts its header: {contradiction}.")
    rows: dict[Split, Tensor] = {name: (split == index).nonzero().flatten() for index, name in enumerate(SPLITS)}
    data = Dataset(header.facts, header.report, x, y, rows, Rows(mapping, x, place))
    # The training split is looked at when it is measured; nothing is read twice for this.
    if x.is_floating_point():
        _check_finite(data.gather(part) for split in ("validation", "test") for part in data.chunks(split))
    return data


def _check_finite(parts: Iterable[Tensor]) -> None:
    if not all(bool(part.isfinite().all()) for part in parts):
        raise unusable("The stored dataset contradicts its header: a value is NaN or infinite.")


def unusable(detail: str) -> JobFailure:
    """The failure of a job whose data cannot be used."""
    return JobFailure("dataset_unusable", detail, hint="Upload the dataset again and start a new job.")


@dataclass(frozen=True)
class Statistics:
    """The training split, per channel of images, per input of tables; rounded to float32, the type in use."""

    mean: list[float]
    std: list[float]
    """1 for an input that never changes: it is centred, and nothing is divided by zero."""
    low: float
    """Smallest value of all."""
    high: float


def measure(data: Dataset) -> Statistics:
    """Mean, standard deviation and range of the training split, in two passes and float64.

    Raises JobFailure `dataset_unusable` for a value that is NaN or infinite.
    """
    image = len(data.facts.shape) == 3
    axes = (0, 2, 3) if image else (0,)
    count = len(data.rows["train"]) * (data.facts.shape[1] * data.facts.shape[2] if image else 1)
    chunks = data.chunks("train")
    # What is kept of each chunk has its place beforehand: small results taken while a chunk's memory is free would
    # settle in it, the next chunk would need new memory, and the heap would grow to the size of the data.
    buffer = torch.empty(max(map(len, chunks)), *data.facts.shape, dtype=torch.float64)
    sums = torch.empty(len(chunks), data.facts.shape[0], dtype=torch.float64)
    low, high = math.inf, -math.inf
    for i, rows in enumerate(chunks):
        values = data.gather(rows)
        torch.sum(buffer[: len(rows)].copy_(values), axes, out=sums[i])
        low, high = min(low, float(values.min())), max(high, float(values.max()))
    mean = sums.sum(0) / count
    _check_finite([mean])
    centre = mean.view(-1, 1, 1) if image else mean
    for i, rows in enumerate(chunks):
        torch.sum(buffer[: len(rows)].copy_(data.gather(rows)).sub_(centre).square_(), axes, out=sums[i])
    square = sums.sum(0) / count
    std = square.sqrt()
    # Below float32's own rounding of the mean, a spread is noise.
    std = torch.where(std > 1e-6 * mean.abs() + 1e-30, std, torch.ones_like(std))
    return Statistics(mean.float().tolist(), std.float().tolist(), low, high)


def _contradiction(facts: DataFacts, x: Tensor, y: Tensor, split: Tensor) -> str | None:
    dtype = torch.uint8 if facts.dtype == "uint8" else torch.float32
    if x.dtype != dtype or y.dtype != torch.int64 or split.dtype != torch.uint8:
        return f"x is {x.dtype}, y is {y.dtype}, split is {split.dtype}"
    if x.shape[1:] != facts.shape or y.shape != x.shape[:1] or split.shape != x.shape[:1]:
        return f"x has shape {list(x.shape)}, y {list(y.shape)}, split {list(split.shape)}, a row {list(facts.shape)}"
    if len(y) and (int(y.min()) < (-1 if facts.unlabelled else 0) or int(y.max()) >= len(facts.classes)):
        return f"a label lies outside the {len(facts.classes)} classes"
    without = split[y < 0]
    if len(without) != facts.unlabelled or without.any():
        return f"{len(without)} rows have no label, some of them to be tested, where {facts.unlabelled} train without"
    counts = {name: int((split == index).sum()) for index, name in enumerate(SPLITS)}
    if any(counts[name] != facts.rows.get(name, 0) for name in SPLITS):
        return f"its splits hold {counts} rows, not {facts.rows}"
    return None
