"""What is known of a dataset once it is stored: enough to check a spec and to shape a network, no rows."""

from typing import Literal

from pydantic import Field

from stillhouse.spec.base import Contract, View

Task = Literal["image-classification", "tabular-classification"]
Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, Split, Split] = ("train", "validation", "test")
"""A stored row carries its split as an index into this tuple."""


class Feature(Contract):
    """One column of a table, in the order of the model's inputs."""

    name: str
    kind: Literal["numeric", "categorical"] = "numeric"
    categories: tuple[str, ...] = Field(default=(), strict=False)
    """Values of a categorical column; it becomes one 0/1 input per value, in this order."""

    @property
    def width(self) -> int:
        """Inputs this column takes."""
        return len(self.categories) if self.kind == "categorical" else 1


class DataFacts(Contract):
    """Shape, classes and sizes of a stored dataset."""

    task: Task
    shape: tuple[int, ...] = Field(strict=False)
    """One row: (channels, height, width) for images, (inputs,) for tables."""
    dtype: Literal["uint8", "float32"]
    classes: tuple[str, ...] = Field(strict=False)
    """Class names; a label is an index into them."""
    rows: dict[Split, int]
    unlabelled: int = 0
    """Training rows without a label, counted in `rows`; they are stored with y = -1."""
    features: tuple[Feature, ...] = Field(default=(), strict=False)
    """Columns of a table; empty for images."""

    @property
    def labelled(self) -> int:
        """Training rows with a label."""
        return self.rows.get("train", 0) - self.unlabelled

    @property
    def inputs(self) -> int:
        """Numbers in one row."""
        total = 1
        for size in self.shape:
            total *= size
        return total


class DroppedRow(View):
    """A row left out, and why."""

    row: str
    """Where it stood: a 1-based data row number, or the member's name in an archive."""
    reason: str


class DataReport(View):
    """What was found when a dataset was stored."""

    rows_read: int
    rows_kept: int
    rows_dropped: int
    dropped: list[DroppedRow] = Field(default_factory=list)
    """The first 100 of them."""
    class_counts: dict[Split, dict[str, int]]
    """Rows per class in each split, in the order of the classes; rows without a label are in none."""
    unlabelled: int = 0
    """Training rows kept without a label."""
    duplicates: int = 0
    """Rows that repeat an earlier row exactly."""
    duplicates_across_splits: int = 0
    """Validation and test rows that also stand in the training split: they flatter every accuracy."""
    notes: list[str] = Field(default_factory=list)
    """Anything a careful person would want to know: imbalance, resized images, constant columns."""


class StoredDataset(Contract):
    """The header a stored dataset file carries: its facts and its report."""

    facts: DataFacts
    report: DataReport
