"""An ONNX graph from a stranger, judged before any runtime sees it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from math import prod

import numpy as np
import numpy.typing as npt
import onnx
from google.protobuf.message import DecodeError
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto

from distill.teachers import onnx_ml
from stillhouse.spec.limits import Limits
from stillhouse.spec.refusing import invalid, pointer, quoted, some, too_large

DOMAINS = ("", "ai.onnx")
_OLDEST = 7
_RANDOM = ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli")
_ENDLESS = ("Loop", "Scan")
"""Their number of steps can depend on the data: a graph that ends on random rows need not end on others."""
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16)
_FOUR_BITS = (TensorProto.UINT4, TensorProto.INT4, TensorProto.FLOAT4E2M1)
_DEPTH = 8
_ANEW = "Export it anew."


@dataclass(frozen=True)
class Checked:
    """A graph that may be run."""

    model: ModelProto
    parameters: int
    """Numbers in its constants."""


def checked(model: ModelProto, limits: Limits) -> Checked:
    """Raises InvalidData or TooLarge, naming the node or tensor, for a graph that is broken, that reaches for anything
    outside the file, or that does what no classifier needs."""
    with damage_refused():
        return _judged(model, limits)


def parsed(data: bytes) -> ModelProto:
    """The graph as it stands. Raises InvalidData when it is none."""
    try:
        model = onnx.load_model_from_string(data)
    except (DecodeError, ValueError, RecursionError):
        model = ModelProto()
    if not model.HasField("graph") or not model.graph.node:
        detail = "The file is no ONNX graph: it is cut short, damaged, or something else."
        raise invalid("/file", "corrupt_graph", detail, _ANEW)
    return model


@contextmanager
def damage_refused() -> Iterator[None]:
    """What reading the fields of a damaged graph raises becomes InvalidData."""
    try:
        yield
    except (TypeError, ValueError, LookupError, AttributeError):  # no text for a name, no type, no input
        raise invalid("/file", "corrupt_graph", "The graph is damaged.", _ANEW) from None


def tensors(model: ModelProto) -> Iterator[TensorProto]:
    """All constants of the graph and of those inside it. Raises InvalidData for sparse ones."""
    return _tensors(model.graph, list(_nodes(model.graph)))


def stored_bytes(tensor: TensorProto) -> int | None:
    """Bytes of a tensor of this shape and type as raw data; None for strings, unknown types and negative sides."""
    try:
        kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    except (KeyError, ValueError, TypeError):
        return None
    if kind == np.dtype(object) or any(side < 0 for side in tensor.dims):
        return None
    bits = 4 if tensor.data_type in _FOUR_BITS else 8 * kind.itemsize
    numbers: int = prod(tensor.dims)
    return (numbers * bits + 7) // 8


def _judged(model: ModelProto, limits: Limits) -> Checked:
    _check_opsets(model)
    if model.functions:
        detail = f"The graph defines functions of its own: {some([quoted(f.name) for f in model.functions])}."
        raise invalid("/file", "custom_op", detail, "Inline them with onnx.inliner.inline_local_functions.")
    nodes = list(_nodes(model.graph))
    for node in nodes:
        _check_node(node, model)
    parameters = 0
    for numbers in chain(map(onnx_ml.numbers, nodes), map(_check_tensor, _tensors(model.graph, nodes))):
        parameters += numbers
        if parameters > limits.max_teacher_parameters:
            detail = f"The graph has more than the limit of {limits.max_teacher_parameters:,} numbers in its constants."
            raise too_large("/file", "too_many_parameters", detail, "Upload a smaller teacher.")
    _check_whole(model)
    onnx_ml.check_models(model.graph, nodes)
    return Checked(model, parameters)


def _check_opsets(model: ModelProto) -> None:
    newest = onnx.defs.onnx_opset_version()
    for entry in model.opset_import:
        if entry.domain in DOMAINS and not _OLDEST <= entry.version <= newest:
            detail = f"The graph needs opset {entry.version}; {_OLDEST} to {newest} are read."
            hint = "Export it with another opset_version, or convert it with onnx.version_converter."
            raise invalid("/file", "unsupported_opset", detail, hint)
    if model.ir_version > onnx.IR_VERSION or not _opset(model):
        detail = f"The graph is of ONNX IR version {model.ir_version}; up to {int(onnx.IR_VERSION)} are read."
        raise invalid("/file", "unsupported_opset", detail, "Export it with a released version of ONNX.")


def _opset(model: ModelProto, domains: tuple[str, ...] = DOMAINS) -> int:
    return max((entry.version for entry in model.opset_import if entry.domain in domains), default=0)


def _nodes(graph: GraphProto, depth: int = 0) -> Iterator[NodeProto]:
    if depth > _DEPTH:
        raise invalid("/file", "corrupt_graph", f"The graph holds graphs nested deeper than {_DEPTH}.")
    for node in graph.node:
        yield node
        for inner in _subgraphs(node):
            yield from _nodes(inner, depth + 1)


def _subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH or attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _check_node(node: NodeProto, model: ModelProto) -> None:
    at = pointer("nodes", node.name or node.op_type)
    if not _is_known(node, model):
        name = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
        detail = f"The graph uses {quoted(name)}, which is no operator of ONNX opset {_opset(model)}."
        hint = "Export it with operators of the ONNX standard alone."
        if node.domain == onnx_ml.DOMAIN:
            detail = f"The graph uses {quoted(name)}; of this domain are run: {', '.join(onnx_ml.OPERATORS)}."
            hint = "Take a linear model, trees, or a network as the teacher."
        raise invalid(at, "custom_op", detail, hint)
    if node.op_type in _RANDOM or (node.op_type == "Dropout" and _trains(node)):
        detail = f"The graph draws random numbers ({node.op_type}): its outputs would differ each time."
        raise invalid(at, "random_outputs", detail, "Export it in eval mode.")
    if node.op_type in _ENDLESS:
        detail = f"The graph has a {node.op_type}, whose number of steps can depend on the data."
        raise invalid(at, "unsupported_op", detail, "Export it without loops.")


def _is_known(node: NodeProto, model: ModelProto) -> bool:
    if node.domain == onnx_ml.DOMAIN:
        version = _opset(model, (onnx_ml.DOMAIN,))
        known = node.op_type in onnx_ml.OPERATORS and onnx.defs.has(node.op_type, version, onnx_ml.DOMAIN)
        return bool(known)
    return node.domain in DOMAINS and bool(onnx.defs.has(node.op_type, max_inclusive_version=_opset(model)))


def _trains(node: NodeProto) -> bool:
    """Whether a Dropout can be told to drop: by its third input, in newer opsets."""
    return len(node.input) > 2 and node.input[2] != ""


def _tensors(graph: GraphProto, nodes: list[NodeProto]) -> Iterator[TensorProto]:
    graphs = [graph, *(inner for node in nodes for inner in _subgraphs(node))]
    for part in graphs:
        if part.sparse_initializer:
            raise _sparse()
        yield from part.initializer
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            if attribute.HasField("sparse_tensor") or attribute.sparse_tensors:
                raise _sparse()


def _sparse() -> Exception:
    return invalid("/file", "unsupported_op", "The graph has sparse constants.", "Export them as dense ones.")


def _check_tensor(tensor: TensorProto) -> int:
    at = pointer("tensors", tensor.name)
    if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
        where = next((entry.value for entry in tensor.external_data if entry.key == "location"), "another file")
        detail = f"The tensor {quoted(tensor.name)} lies in {quoted(where)}, outside the uploaded file."
        hint = "Save it into one file: onnx.save_model(onnx.load(path), out, save_as_external_data=False); or upload a "
        hint += "ZIP of the folder with the graph and its data file."
        raise invalid(at, "external_data", detail, hint)
    numbers: int = prod(tensor.dims)
    if not _is_there(tensor, numbers):
        shape = "×".join(map(str, tensor.dims))
        detail = f"The tensor {quoted(tensor.name)} says it has {shape} numbers, and has others."
        raise invalid(at, "corrupt_graph", detail, "Export the graph anew.")
    # Infinity is the constant of a mask, and a single NaN that of a fill: what comes out of them is looked at later.
    if tensor.data_type in _FLOATS and numbers > 1 and np.isnan(_values(tensor)).any():
        detail = f"The weights hold NaN: {quoted(tensor.name)}."
        raise invalid(at, "weights_not_finite", detail, "Upload a checkpoint from before the training diverged.")
    return numbers


def _values(tensor: TensorProto) -> npt.NDArray[np.float32]:
    values: npt.NDArray[np.float32] = onnx.numpy_helper.to_array(tensor).astype(np.float32)
    return values


def _is_there(tensor: TensorProto, numbers: int) -> bool:
    """Whether the tensor has as many numbers as its shape says; strings and unknown types are never taken."""
    needed = stored_bytes(tensor)
    if needed is None or tensor.HasField("raw_data"):
        return needed is not None and needed == len(tensor.raw_data)
    lists = (tensor.float_data, tensor.int32_data, tensor.int64_data, tensor.double_data, tensor.uint64_data)
    return numbers <= sum(map(len, lists)) * 2 and max(map(len, lists)) <= max(2 * numbers, 1)


def _check_whole(model: ModelProto) -> None:
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError) as error:
        said = next(iter(str(error).splitlines()), "")
        raise invalid("/file", "corrupt_graph", f"The graph is not valid ONNX: {said[:160]!r}.") from None
