"""A stored dataset in memory: all rows as two tensors, the splits as lists of row numbers."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from stillhouse.spec import SPLITS, DataFacts, DataReport, StoredDataset
from stillhouse.spec.errors import JobFailure
from stillhouse.spec.facts import Split

_CHUNK_NUMBERS = 2**22  # 16 MB of float32: what is read at once where all rows are passed over


@dataclass(frozen=True)
class Dataset:
    """`x` uint8 [N, C, H, W] or float32 [N, F], `y` int64 [N] (-1: no label), `rows` int64 [n] for each split."""

    facts: DataFacts
    report: DataReport
    x: Tensor
    y: Tensor
    rows: dict[Split, Tensor]

    def labelled(self) -> "Dataset":
        """The same data without the training rows that have no label: what trains on labels alone sees this."""
        if not self.facts.unlabelled:
            return self
        train = self.rows["train"]
        return replace(self, rows={**self.rows, "train": train[self.y[train] >= 0]})

    def to(self, device: torch.device) -> "Dataset":
        """The same data on `device`: rows are picked there, so no batch travels."""
        rows = {split: index.to(device) for split, index in self.rows.items()}
        return Dataset(self.facts, self.report, self.x.to(device), self.y.to(device), rows)

    def chunks(self, split: Split, *, most: int = 1024) -> list[Tensor]:
        """Row numbers of `split` in order, cut so that one chunk of inputs stays small."""
        return list(torch.split(self.rows[split], max(1, min(most, _CHUNK_NUMBERS // self.facts.inputs))))

    def gather(self, rows: Tensor) -> Tensor:
        """Raw values of these rows, as they are stored."""
        return self.x[rows]

    def inputs(self, rows: Tensor) -> Tensor:
        """Raw values of these rows as float32: what a network takes."""
        return self.gather(rows).float()

    @cached_property
    def white(self) -> float:
        """The brightest value of images: 255, or the greatest of the training split where it has fewer than 8 bits."""
        greatest = max(float(self.gather(rows).max()) for rows in self.chunks("train"))
        return greatest if 0 < greatest < 128 else 255.0


def read_dataset(path: Path) -> Dataset:
    """Read a stored dataset file. The big tensor stays mapped, so only pages in use take memory.

    Raises JobFailure `dataset_unusable` when the file is not one, or its tensors contradict its own header.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = StoredDataset.model_validate_json((file.metadata() or {}).get("stillhouse", ""))
            x, y, split = (file.get_tensor(name) for name in ("x", "y", "split"))
    except (OSError, SafetensorError, ValidationError) as error:
        raise unusable(
            "The stored dataset could not be read: it is missing, cut short or not a dataset file."
        ) from error
    if contradiction := _contradiction(header.facts, x, y, split):
        raise unusable(f"The stored dataset contradicts its header: {contradiction}.")
    rows: dict[Split, Tensor] = {name: (split == index).nonzero().flatten() for index, name in enumerate(SPLITS)}
    return Dataset(header.facts, header.report, x, y, rows)


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
    """Mean, standard deviation and range of the training split, in two passes and float64."""
    image = len(data.facts.shape) == 3
    axes = (0, 2, 3) if image else (0,)
    count = len(data.rows["train"]) * (data.facts.shape[1] * data.facts.shape[2] if image else 1)
    chunks = data.chunks("train")
    mean = torch.stack([data.x[rows].double().sum(axes) for rows in chunks]).sum(0) / count
    centre = mean.view(-1, 1, 1) if image else mean
    square = torch.stack([(data.x[rows].double() - centre).square().sum(axes) for rows in chunks]).sum(0) / count
    std = square.sqrt()
    # Below float32's own rounding of the mean, a spread is noise.
    std = torch.where(std > 1e-6 * mean.abs() + 1e-30, std, torch.ones_like(std))
    low, high = min(float(data.x[rows].min()) for rows in chunks), max(float(data.x[rows].max()) for rows in chunks)
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
    if x.is_floating_point() and not all(bool(part.isfinite().all()) for part in torch.split(x, 65_536)):
        return "a value is NaN or infinite"
    return None
