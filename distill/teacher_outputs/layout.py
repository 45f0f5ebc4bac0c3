"""How kept outputs lie in their file: the tensors, their types and shapes."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from distill.taps import Outputs
from stillhouse.spec.teacher_outputs import id_bytes, output_bytes

VALUES, IDS = "values", "ids"


@dataclass(frozen=True)
class Layout:
    """Outputs for `views` views of `rows` rows, view after view."""

    views: int
    rows: int
    classes: int
    top_k: int | None = None

    @property
    def total(self) -> int:
        """Rows of the file: that of position p in view v is v · rows + p."""
        return self.views * self.rows

    @property
    def tensors(self) -> dict[str, tuple[torch.dtype, int]]:
        """Name → type and numbers per row; in the order of the file."""
        if self.top_k is None:
            return {VALUES: (torch.float32, self.classes)}
        small = torch.int16 if id_bytes(self.classes) == 2 else torch.int32
        return {VALUES: (torch.float32, self.top_k + 1), IDS: (small, self.top_k)}

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return output_bytes(self.rows, self.classes, self.views, self.top_k)

    def empty(self) -> dict[str, Tensor]:
        """Room for all in memory."""
        return {name: torch.empty(self.total, width, dtype=dtype) for name, (dtype, width) in self.tensors.items()}

    def packed(self, said: Outputs) -> dict[str, Tensor]:
        """What a teacher said of some rows, in the types of the file, on the CPU."""
        given = {VALUES: said.logits, IDS: said.ids}
        return {
            name: part.to("cpu", dtype).contiguous()
            for name, (dtype, _) in self.tensors.items()
            if (part := given[name]) is not None
        }

    def places(self) -> Iterator[tuple[str, int, int]]:
        """(name, first byte, bytes of a row) of each tensor, counted from the first."""
        first = 0
        for name, (dtype, width) in self.tensors.items():
            yield name, first, dtype.itemsize * width
            first += self.total * dtype.itemsize * width
