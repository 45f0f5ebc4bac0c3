"""Which rows go together in one optimizer step: pure functions, no state."""

from itertools import pairwise

from torch import nn


def bounds(rows: int, batch_size: int, *, at_least: int = 1) -> list[tuple[int, int]]:
    """Cut `rows` positions into steps of `batch_size`; the last may be smaller, and no row is left out.

    A last step of fewer than `at_least` rows is joined to the one before.
    """
    size = max(batch_size, at_least)
    cuts = [*range(0, rows, size), rows]
    if len(cuts) > 2 and cuts[-1] - cuts[-2] < at_least:
        del cuts[-2]
    return list(pairwise(cuts))


def fewest_rows(net: nn.Module) -> int:
    """Rows a training step of `net` needs: batch norm takes its variance over the batch, and one row has none."""
    return 2 if any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in net.modules()) else 1
