"""Several teachers with one voice."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from distill.losses.softened import log_softened


def mixture(logits: Sequence[Tensor], *, weights: Sequence[float], temperatures: Sequence[float]) -> Tensor:
    """log Σ wᵢ · softmax(zᵢ / Tᵢ), from logits [N, classes] each; float32 or wider (arXiv:1503.02531 §1).

    The weights are scaled to sum to 1, so every row is a distribution.
    """
    total = sum(weights)
    parts = [
        log_softened(z, temperature=heat) + torch.tensor(weight / total, dtype=torch.float64).log().item()
        for z, weight, heat in zip(logits, weights, temperatures, strict=True)
    ]
    return torch.stack(parts).logsumexp(0)


class Mixture(nn.Module):
    """A network of networks: raw rows → T · log of the members' mixture [N, classes].

    Softened at T, such logits are the weighted mean of the members' softened distributions, exactly; at another
    temperature they are that mean sharpened or flattened.
    """

    def __init__(
        self,
        members: Sequence[nn.Module],
        *,
        weights: Sequence[float],
        temperatures: Sequence[float],
        temperature: float,
    ) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self._weights, self._temperatures, self._temperature = tuple(weights), tuple(temperatures), temperature

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, classes] of rows [N, …]."""
        logits = [member(x) for member in self.members]
        return self._temperature * mixture(logits, weights=self._weights, temperatures=self._temperatures)
