"""A teacher that looks at each image from several places, and says what it thinks on average.

A network trained on shifted images answers almost the same for all shifts of one. What is left differs from image to
image without a rule, so a student can learn it by heart and nothing more. The mean has less of it.
"""

import json
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill.model import digest
from distill.teacher import Teacher


def over_shifts(teacher: Teacher, by: int) -> Teacher:
    """The teacher with its answers averaged over shifts of up to `by` pixels; with 0 the teacher itself."""
    if by == 0:
        return teacher
    return replace(
        teacher,
        wake=lambda: Shifted(teacher.net, by).eval(),
        described=f"{teacher.described}, mean over {(2 * by + 1) ** 2} shifts",
        fingerprint=digest(json.dumps(["shifts/1", teacher.fingerprint, by]).encode()),
    )


class Shifted(nn.Module):
    """images [N, C, H, W] → the mean of `net`'s logits [N, classes] over all shifts by -by…by pixels down and right,
    zeros entering."""

    def __init__(self, net: nn.Module, by: int) -> None:
        super().__init__()
        self.net, self._by = net, by

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, classes], float32 or wider. All shifts to the right go through the network together: larger
        batches are faster, and all shifts at once would take too much memory."""
        by, (rows, _, height, width) = self._by, x.shape
        places = range(2 * by + 1)
        padded = F.pad(x, (by, by, by, by))
        total: Tensor | None = None
        for down in places:
            strip = padded[:, :, down : down + height]
            views = torch.cat([strip[..., right : right + width] for right in places])
            logits = self.net(views)
            wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
            strip_sum = wide.unflatten(0, (len(places), rows)).sum(0)
            total = strip_sum if total is None else total + strip_sum
        assert total is not None
        return total / len(places) ** 2
