"""The first layer of every network: raw values in, standardised values out."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Normalize(nn.Module):
    """(x - mean) / std, per channel of images [N, C, H, W] or per input of tables [N, F].

    mean and std are buffers measured on the training split, so they travel with the weights and into ONNX:
    nobody has to know them to use the model.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float], *, image: bool) -> None:
        super().__init__()
        shape = (-1, 1, 1) if image else (-1,)
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(shape))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(shape))

    def forward(self, x: Tensor) -> Tensor:
        """Standardise float32 `x`; the shape stays."""
        return (x - self.mean) / self.std
