"""The smallest teacher there is: a linear network as an ONNX graph, made without torch."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def linear(
    *, weights: np.ndarray[Any, Any] | None = None, change: Callable[[onnx.ModelProto], None] | None = None
) -> bytes:
    """A graph for rows [N, 4] and 3 classes; `change` may spoil it."""
    values = np.arange(12, dtype=np.float32).reshape(4, 3) if weights is None else weights
    net = helper.make_graph(
        [helper.make_node("MatMul", ["rows", "w"], ["scores"])],
        "linear",
        [helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(values, "w")],
    )
    model = helper.make_model(net, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    if change is not None:
        change(model)
    content: bytes = model.SerializeToString()
    return content


def elsewhere(model: onnx.ModelProto, **says: str) -> None:
    """The weights in another file."""
    lie(model.graph.initializer[0], **says)


def lie(tensor: TensorProto, **says: str) -> None:
    """The tensor's bytes are elsewhere: at the location, offset and length that are said."""
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in says.items():
        tensor.external_data.add(key=key, value=value)
