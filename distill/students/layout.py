"""How the weights of a network lie in memory."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_BLOCK = 16
"""Channels the kernels of oneDNN take at a time: 8 with AVX2, 16 with AVX-512."""


class EveryNthPixel(nn.Conv2d):
    """A 1×1 convolution with a stride, worked out as one without on every n-th pixel: the same values.

    For fewer channels than a block oneDNN's own way, channels last, writes past its workspace when it works out the
    gradient of the weights: wrong gradients, or the end of the process (uxlfoundation/oneDNN#6035, open in 2026).
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        down, right = self.stride
        return F.conv2d(input[..., ::down, ::right], weight, bias, groups=self.groups)


def channels_last(net: nn.Module) -> nn.Module:
    """`net` with the weights of its convolutions laid out as the kernels want them: up to twice as fast.

    A convolution gives its output in the layout of its weights, so a network that starts so goes on so. Shapes and
    values stay, and files hold the usual order.
    """
    for module in net.modules():
        if type(module) is nn.Conv2d and _is_harmed(module):
            module.__class__ = EveryNthPixel
    return net.to(memory_format=torch.channels_last)


def _is_harmed(conv: nn.Conv2d) -> bool:
    pointwise = conv.kernel_size == (1, 1) and conv.padding in ((0, 0), "valid", "same")
    return pointwise and conv.stride != (1, 1) and conv.in_channels // conv.groups < _BLOCK
