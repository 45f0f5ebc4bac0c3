"""Networks of our own families as ONNX, written layer by layer.

torch's exporter traces any network, decomposes it twice and takes most of a second for the smallest: longer than some
jobs train. Layers we know are a node or two each, written in milliseconds. A batch norm goes into the convolution
before it: w · γ/σ and β - µ · γ/σ. A student's file is held against the torch network, whoever wrote it.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper
from torch import Tensor, nn

from distill.students.cnn import GlobalAverage
from distill.students.layout import EveryNthPixel
from distill.students.mobilenet import InvertedResidual
from distill.students.normalize import Normalize
from distill.students.resnet import Block

_OUTPUTS_AT_ONCE = 32


class UnknownLayerError(Exception):
    """No rule for a layer: the network needs torch's exporter."""


class Graph:
    """Nodes and weights so far, in the message that will hold them. A value is named after the layer that gives it."""

    def __init__(self, proto: onnx.GraphProto) -> None:
        self._proto = proto

    def weight(self, name: str, value: Tensor | list[int] | float) -> str:
        """Keep a tensor, or whole numbers, under `name`."""
        if isinstance(value, Tensor):
            array = value.detach().contiguous().numpy()
        else:
            array = np.array(value, np.float32 if isinstance(value, float) else np.int64)
        # Filled in place: a tensor made first and then appended would be there twice.
        kept = self._proto.initializer.add(name=name, dims=array.shape, raw_data=array.tobytes())
        kept.data_type = helper.np_dtype_to_tensor_dtype(array.dtype)
        return name

    def node(self, kind: str, inputs: list[str], name: str, **attributes: Any) -> str:
        """Add a node with one output, named `name` as the node is."""
        self._proto.node.append(helper.make_node(kind, inputs, [name], name, **attributes))
        return name


def written(net: nn.Module, shape: tuple[int, ...], classes: int, *, opset: int) -> onnx.ModelProto:
    """`net` in eval mode and on the CPU: `input` [batch, *shape] float32 → `logits` [batch, classes].

    Raises UnknownLayerError.
    """
    # Filled in place: the helpers that make a model from its parts copy every weight twice.
    model = onnx.ModelProto(producer_name="stillhouse")
    model.opset_import.append(helper.make_opsetid("", opset))
    model.ir_version = helper.find_min_ir_version_for(model.opset_import)
    model.graph.name = "stillhouse"
    model.graph.input.append(helper.make_tensor_value_info("input", onnx.TensorProto.FLOAT, ["batch", *shape]))
    model.graph.output.append(helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["batch", classes]))
    graph = Graph(model.graph)
    graph.node("Identity", [_write(graph, net, "", "input")], "logits")
    return model


def _write(graph: Graph, layer: nn.Module, path: str, x: str) -> str:
    """Add `layer` at `path`, reading the value `x`, and return the name of what it gives."""
    # Exactly these types: a subclass may do something else.
    rule = _RULES.get(type(layer))
    if rule is None:
        raise UnknownLayerError(type(layer).__name__)
    return rule(graph, layer, path, x)


def _sequential(graph: Graph, layer: nn.Sequential, path: str, x: str) -> str:
    parts = list(layer.named_children())
    for position, (name, part) in enumerate(parts):
        inner = f"{path}.{name}".lstrip(".")
        following = parts[position + 1][1] if position + 1 < len(parts) else None
        if isinstance(part, nn.Conv2d):
            x = _convolution(graph, part, following, inner, x)
        elif not isinstance(part, nn.BatchNorm2d) or not position or not isinstance(parts[position - 1][1], nn.Conv2d):
            x = _write(graph, part, inner, x)
    return x


def _convolution(graph: Graph, layer: nn.Conv2d, norm: nn.Module | None, path: str, x: str) -> str:
    """A convolution together with the batch norm after it, if it is one."""
    if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
        raise UnknownLayerError(f"padding {layer.padding_mode} {layer.padding}")
    weight, bias = layer.weight, layer.bias
    if isinstance(norm, nn.BatchNorm2d):
        weight, bias = _folded(weight, bias, norm)
    inputs = [x, graph.weight(f"{path}.weight", weight)]
    if bias is not None:
        inputs.append(graph.weight(f"{path}.bias", bias))
    return graph.node(
        "Conv",
        inputs,
        path,
        kernel_shape=list(layer.kernel_size),
        strides=list(layer.stride),
        pads=[*layer.padding, *layer.padding],
        dilations=list(layer.dilation),
        group=layer.groups,
    )


@torch.no_grad()
def _folded(weight: Tensor, bias: Tensor | None, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    mean, variance = norm.running_mean, norm.running_var
    if mean is None or variance is None or not norm.affine:
        raise UnknownLayerError("a batch norm without statistics or scale")
    scale = norm.weight.double() / (variance.double() + norm.eps).sqrt()
    offset = norm.bias.double() + ((0 if bias is None else bias.double()) - mean.double()) * scale
    return _scaled(weight, scale), offset.float()


def _scaled(weight: Tensor, scale: Tensor) -> Tensor:
    """`weight` [out, …] with each output's part times its float64 `scale` [out], worked out in float64."""
    scaled = torch.empty(weight.shape)  # in the order of the file, whatever that of the network
    # Some outputs at a time stay in the cache: all at once asks the kernel for memory twice the size of the weights.
    for first in range(0, len(weight), _OUTPUTS_AT_ONCE):
        rows = slice(first, first + _OUTPUTS_AT_ONCE)
        scaled[rows] = weight[rows].double().mul_(scale[rows].view(-1, 1, 1, 1))
    return scaled


def _block(graph: Graph, layer: Block, path: str, x: str) -> str:
    out = _convolution(graph, layer.conv1, layer.norm1, f"{path}.conv1", x)
    out = graph.node("Relu", [out], f"{path}.relu1")
    out = _convolution(graph, layer.conv2, layer.norm2, f"{path}.conv2", out)
    out = graph.node("Add", [out, _shortcut(graph, layer, f"{path}.shortcut", x)], f"{path}.sum")
    return graph.node("Relu", [out], path)


def _shortcut(graph: Graph, layer: Block, path: str, x: str) -> str:
    if layer.project is not None:
        return _sequential(graph, layer.project, path, x)
    if layer.stride == 1:
        return x
    bounds = {"starts": [0, 0], "ends": [2**31 - 1] * 2, "axes": [2, 3], "steps": [layer.stride] * 2}
    sliced = [x, *(graph.weight(f"{path}.{name}", value) for name, value in bounds.items())]
    out = graph.node("Slice", sliced, f"{path}.sliced")
    half = layer.new_channels // 2
    pads = graph.weight(f"{path}.pads", [0, half, 0, 0, 0, layer.new_channels - half, 0, 0])
    return graph.node("Pad", [out, pads], path)


def _inverted_residual(graph: Graph, layer: InvertedResidual, path: str, x: str) -> str:
    out = x
    for name in ("expand", "filter", "project"):
        out = _write(graph, layer.get_submodule(name), f"{path}.{name}", out)
    return graph.node("Add", [x, out], path) if layer.shortcut else out


def _normalize(graph: Graph, layer: Normalize, path: str, x: str) -> str:
    centred = graph.node("Sub", [x, graph.weight(f"{path}.mean", layer.mean)], f"{path}.centred")
    return graph.node("Div", [centred, graph.weight(f"{path}.std", layer.std)], path)


def _linear(graph: Graph, layer: nn.Linear, path: str, x: str) -> str:
    if layer.bias is None:
        raise UnknownLayerError("a linear layer without bias")
    inputs = [x, graph.weight(f"{path}.weight", layer.weight), graph.weight(f"{path}.bias", layer.bias)]
    return graph.node("Gemm", inputs, path, transB=1)


def _max_pool(graph: Graph, layer: nn.MaxPool2d, path: str, x: str) -> str:
    plain = isinstance(layer.kernel_size, int) and layer.stride == layer.kernel_size and layer.dilation == 1
    if not plain or layer.padding or layer.ceil_mode or layer.return_indices:
        raise UnknownLayerError("a pool of other dials")
    sides = [layer.kernel_size] * 2
    return graph.node("MaxPool", [x], path, kernel_shape=sides, strides=sides)


def _flatten(graph: Graph, layer: nn.Flatten, path: str, x: str) -> str:
    if (layer.start_dim, layer.end_dim) != (1, -1):
        raise UnknownLayerError("a flattening of some axes")
    return graph.node("Flatten", [x], path, axis=1)


def _average(graph: Graph, layer: GlobalAverage, path: str, x: str) -> str:
    return graph.node("ReduceMean", [x, graph.weight(f"{path}.axes", [2, 3])], path, keepdims=0)


def _clip(graph: Graph, layer: nn.ReLU6, path: str, x: str) -> str:
    bounds = [graph.weight(f"{path}.least", 0.0), graph.weight(f"{path}.most", 6.0)]
    return graph.node("Clip", [x, *bounds], path)


_RULES: dict[type[nn.Module], Callable[[Graph, Any, str, str], str]] = {
    nn.Sequential: _sequential,
    Normalize: _normalize,
    nn.Conv2d: lambda graph, layer, path, x: _convolution(graph, layer, None, path, x),
    EveryNthPixel: lambda graph, layer, path, x: _convolution(graph, layer, None, path, x),
    nn.Linear: _linear,
    nn.ReLU: lambda graph, layer, path, x: graph.node("Relu", [x], path),
    nn.ReLU6: _clip,
    nn.MaxPool2d: _max_pool,
    nn.Flatten: _flatten,
    GlobalAverage: _average,
    nn.Dropout: lambda graph, layer, path, x: x,
    nn.Identity: lambda graph, layer, path, x: x,
    Block: _block,
    InvertedResidual: _inverted_residual,
}
