"""The operators an uploaded program may use: a closed list, for what classifiers compute, nothing else.

None of them reads or writes a file, takes memory that was not asked for by its shape, or draws random numbers.
"""

import math
import operator
from collections.abc import Callable
from typing import Any

import torch

_ATEN = """
abs acos add add_ addcdiv addcmul addmm adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d
adaptive_max_pool1d adaptive_max_pool2d alias all alpha_dropout amax amin any arange argmax argmin as_strided asin atan
atan2 avg_pool1d avg_pool2d avg_pool3d baddbmm batch_norm bitwise_and bitwise_not bitwise_or bmm broadcast_to bucketize
cat ceil celu celu_ channel_shuffle chunk clamp clamp_ clamp_max clamp_max_ clamp_min clamp_min_ clone col2im concat
concatenate constant_pad_nd contiguous conv1d conv2d conv3d conv_transpose1d conv_transpose2d convolution copy copy_ cos
cosh count_nonzero cumprod cumsum detach detach_ diag_embed diagonal diff div div_ dropout dropout_ einsum elu elu_
embedding eq erf exp exp_ expand expand_as expm1 eye feature_dropout feature_dropout_ fill fill_ flatten flip floor
floor_divide fmod frac full full_like gather ge gelu gelu_ glu grid_sampler_2d grid_sampler group_norm gt hardsigmoid
hardsigmoid_ hardswish hardswish_ hardtanh hardtanh_ im2col index index_add index_put index_select instance_norm
isfinite isinf isnan layer_norm le leaky_relu leaky_relu_ lerp lift_fresh_copy linalg_norm linalg_vector_norm linear
linspace log log10 log1p log2 log_sigmoid log_softmax logical_and logical_not logical_or logical_xor logsumexp lt
masked_fill masked_fill_ matmul max max_pool1d max_pool2d max_pool2d_with_indices max_pool3d maximum mean meshgrid min
minimum mish mish_ mm movedim mul mul_ mv nan_to_num narrow native_group_norm native_layer_norm ne neg neg_ new_full
new_ones new_zeros norm numpy_T one_hot ones ones_like outer pad permute pixel_shuffle pixel_unshuffle pow
prelu prod ravel reciprocal reflection_pad1d reflection_pad2d reflection_pad3d relu relu6 relu6_ relu_ remainder
renorm repeat repeat_interleave replication_pad1d replication_pad2d replication_pad3d reshape reshape_as rms_norm roll
rot90 round rsqrt rsub scalar_tensor scaled_dot_product_attention scatter scatter_add scatter_reduce searchsorted select
select_scatter selu selu_ sgn sigmoid sigmoid_ sign silu silu_ sin sinh slice slice_scatter softmax softplus softshrink
sort split split_with_sizes sqrt sqrt_ square squeeze stack std std_mean sub sub_ sum swapaxes swapdims sym_numel
sym_size sym_storage_offset sym_stride t tan tanh tanh_ tensor_split threshold threshold_ tile to topk transpose tril
triu true_divide trunc type_as unbind unflatten unfold unsafe_chunk unsafe_split unsqueeze upsample_bicubic2d
upsample_bilinear2d upsample_linear1d upsample_nearest1d upsample_nearest2d upsample_trilinear3d var var_mean vdot view
view_as where zeros zeros_like
_adaptive_avg_pool2d _adaptive_avg_pool3d _assert_tensor_metadata _log_softmax
_native_batch_norm_legit_no_training _prelu_kernel _softmax _to_copy _unsafe_view _upsample_bicubic2d_aa
_upsample_bilinear2d_aa _upsample_nearest_exact1d _upsample_nearest_exact2d
"""
NAMES = frozenset(_ATEN.split())

PLAIN: dict[str, Callable[..., Any]] = {
    **{f"_operator.{name}": getattr(operator, name) for name in ("add", "sub", "mul", "floordiv", "truediv", "mod")},
    **{f"_operator.{name}": getattr(operator, name) for name in ("neg", "eq", "ne", "lt", "le", "gt", "ge", "pow")},
    **{f"math.{name}": getattr(math, name) for name in ("ceil", "floor", "trunc")},
    "torch.sym_max": max,
    "torch.sym_min": min,
    "torch.sym_int": int,
    "torch.sym_float": float,
    "torch.sym_not": operator.not_,
}
"""Arithmetic on sizes: plain numbers, here."""

MUST_BE_FALSE = {
    "dropout": "train",
    "dropout_": "train",
    "feature_dropout": "train",
    "feature_dropout_": "train",
    "alpha_dropout": "train",
    "batch_norm": "training",
}
"""Arguments that say whether the network is being trained."""


def operator_of(target: str) -> Callable[..., Any] | None:
    """The operator of this name, None when it is not on the list."""
    if target in PLAIN:
        return PLAIN[target]
    parts = target.split(".")
    if len(parts) != 5 or parts[:3] != ["torch", "ops", "aten"] or parts[3] not in NAMES:
        return None
    packet = getattr(torch.ops.aten, parts[3], None)
    # Only an overload that the packet itself lists: an attribute of another kind is no operator.
    if packet is None or parts[4] not in packet.overloads():
        return None
    found = getattr(packet, parts[4])
    # Those that write into a tensor they are given are for code, no program of torch.export has them.
    written = any(argument.is_out for argument in found._schema.arguments)
    return None if written else found
