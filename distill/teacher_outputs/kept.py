"""Outputs that are kept, as a teacher that only reads."""

import torch
from torch import Tensor

from distill.mapped import Mapping, Rows
from distill.taps import Outputs
from distill.teacher_outputs.layout import IDS, VALUES, Layout


class Kept:
    """A teacher's outputs for every view of every training row."""

    def __init__(self, layout: Layout, tensors: dict[str, Tensor], *, rows: dict[str, Rows] | None = None) -> None:
        """`tensors` lie in memory, or on disk with `rows` as the way to them."""
        self.layout, self._tensors, self._rows = layout, tensors, rows

    @classmethod
    def mapped(cls, mapping: Mapping, layout: Layout) -> "Kept":
        """Read where they lie on disk: they may be larger than memory."""
        entries, start = mapping.header()
        rows = {name: Rows(mapping, *mapping.tensor(entries[name], start)) for name in layout.tensors}
        return cls(layout, {name: found.x for name, found in rows.items()}, rows=rows)

    def to(self, device: torch.device) -> "Kept":
        """Where they are needed: beside the data on a GPU, where no batch should travel; else as they lie."""
        if device.type == "cpu":
            return self
        return Kept(self.layout, {name: part.to(device) for name, part in self._tensors.items()})

    def of(self, positions: Tensor, view: int) -> Outputs:
        """What was said of view `view` of the rows at `positions` in the training split, int64 [B]."""
        places = positions + view * self.layout.rows
        ids = self._picked(IDS, places).long() if IDS in self._tensors else None
        return Outputs(self._picked(VALUES, places), ids=ids)

    def _picked(self, name: str, places: Tensor) -> Tensor:
        return self._tensors[name][places] if self._rows is None else self._rows[name].gather(places)
