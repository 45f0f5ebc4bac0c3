"""A network from elsewhere between its preprocessing and its logits."""

import torch
from torch import Tensor, nn

from distill.teachers.prepare import PrepareImages, PrepareTable
from stillhouse.spec.teachers import ForeignConfig


class Teacher(nn.Module):
    """Raw float32 rows of a dataset → logits [N, classes] float32, frozen: no gradient flows through it."""

    def __init__(self, network: nn.Module, config: ForeignConfig, *, white: float) -> None:
        super().__init__()
        preparing = config.preprocessing
        self.prepare: nn.Module
        if config.task == "image-classification":
            self.prepare = PrepareImages(preparing, config.shape[0], white)
        else:
            self.prepare = PrepareTable(preparing, white)
        self.network = network
        self.gives = config.gives
        self.rows_at_once: int | None = None
        """More go through it in portions: images may be far larger behind the preprocessing. None: all at once."""
        self.requires_grad_(False).eval()

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Logits; of a network that gives probabilities, their logarithms."""
        given = self._in_portions(x, self.rows_at_once) if self.rows_at_once else self.raw(x)
        return as_logits(given) if self.gives == "probabilities" else given

    def _in_portions(self, x: Tensor, rows: int) -> Tensor:
        # Where to cut depends on how many rows there are, and an exported graph must not: it takes all at once.
        if torch.compiler.is_exporting() or len(x) <= rows:
            return self.raw(x)
        return torch.cat([self.raw(part) for part in torch.split(x, rows)])

    def raw(self, x: Tensor) -> Tensor:
        """What the network itself gives for these rows."""
        given: Tensor = self.network(self.prepare(x))
        return given.float() if isinstance(given, Tensor) else given

    def train(self, mode: bool = True) -> "Teacher":
        """A teacher from elsewhere stays in eval mode."""
        return super().train(False)


def as_logits(probabilities: Tensor) -> Tensor:
    """Probabilities [N, classes] → their logarithms, with 0 taken for the smallest normal float32."""
    return probabilities.float().clamp_min(torch.finfo(torch.float32).tiny).log()
