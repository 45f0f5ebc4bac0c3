"""What a teacher says of rows, so that the same row is answered with the same bits whatever rows are asked with it.

A batch of another size may be worked out by other kernels, which add up in another order. So a teacher is always asked
in tiles of one size, the last one filled up. Within a tile a row's place must not matter either: convolutions keep that
promise, matrix products of MKL in its reproducible mode (`distill.device`), where they no longer depend on how a row
lies in memory. On another kind of machine, with other threads or another torch, bits differ: the key of what is kept
says so.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from distill.data import chunk_rows
from distill.device import Precision, arithmetic
from distill.losses.softened import top_of
from distill.taps import Outputs

# Small tiles stay in a CPU's caches, and are about as fast as large ones: the usual batch is a multiple.
_TILE_ROWS = {"cpu": 32, "cuda": 128}


class Voice:
    """A teacher to be asked: a network in eval mode, raw float32 rows [N, …] → logits [N, classes]."""

    def __init__(
        self,
        net: nn.Module,
        *,
        top_k: int | None = None,
        temperature: float = 1.0,
        precision: Precision = "fp32",
    ) -> None:
        """With `top_k` it names the largest outputs and the sum of the rest, for losses at `temperature`. In bf16 it is
        about twice as fast, and the promise about bits is not made."""
        self._net, self._top_k, self._temperature, self._precision = net, top_k, temperature, precision

    @torch.no_grad()
    def of(self, x: Tensor) -> Outputs:
        """What it says of x float32 [N, …]."""
        said = [self._of_tile(tile, rows) for tile, rows in _tiles(x)]
        if self._top_k is None:
            return Outputs(torch.cat([out.logits for out in said]))
        ids = torch.cat([out.ids for out in said if out.ids is not None])
        return Outputs(torch.cat([out.logits for out in said]), ids=ids)

    def _of_tile(self, x: Tensor, rows: int) -> Outputs:
        with arithmetic(self._precision, x.device):
            logits = self._net(x).float()
        if self._top_k is None:
            return Outputs(logits[:rows])
        values, ids = top_of(logits, self._top_k, temperature=self._temperature)
        return Outputs(values[:rows], ids=ids[:rows])


def tile_rows(x: Tensor) -> int:
    """Rows of a tile: a function of the shape of a row and the kind of device alone. What is read at once when all
    rows are passed over is a multiple of it."""
    return min(_TILE_ROWS.get(x.device.type, 32), chunk_rows(x[0].numel()))


def _tiles(x: Tensor) -> Iterator[tuple[Tensor, int]]:
    """Tiles of x, each of the same shape, and how many of their rows count."""
    size = tile_rows(x)
    for part in torch.split(x, size):
        short = size - len(part)
        yield (torch.cat([part, part[:1].expand(short, *part.shape[1:])]) if short else part.contiguous()), len(part)
