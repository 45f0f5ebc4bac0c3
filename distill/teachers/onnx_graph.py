"""An uploaded ONNX graph: which input, which output, which axes."""

from functools import partial
from pathlib import Path
from typing import Literal

from onnx import GraphProto, NodeProto, TensorProto, ValueInfoProto

from distill.teachers.axes import Dims, fixed_size, row_of
from distill.teachers.draft import Draft, settled
from distill.teachers.onnx_checks import checked, damage_refused, parsed
from distill.teachers.onnx_ml import scores_alone
from distill.teachers.onnx_net import OnnxModule
from stillhouse.spec.limits import Limits
from stillhouse.spec.refusing import invalid, quoted, some
from stillhouse.spec.teachers import OnnxNet, Preprocessing, TeacherOptions

_TYPES = {
    TensorProto.FLOAT: "float32",
    TensorProto.FLOAT16: "float16",
    TensorProto.DOUBLE: "float64",
    TensorProto.UINT8: "uint8",
    TensorProto.INT8: "int8",
    TensorProto.INT32: "int32",
    TensorProto.INT64: "int64",
}
_NUMBERS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
_PASSING = ("Identity", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze")


def read(data: bytes, options: TeacherOptions, limits: Limits) -> Draft:
    """The graph in `data`, the content of one file. Raises InvalidData or TooLarge."""
    whole = parsed(data)
    with damage_refused():
        model, classes = scores_alone(whole)
    graph = checked(model, limits)
    if model is not whole:
        data = model.SerializeToString()
    net, dims = _input(graph.model.graph)
    output, gives, notes = _output(graph.model.graph, options)
    net = net.model_copy(update={"output": output})
    shape, layout = row_of(dims, options)
    own = Preprocessing(layout=layout, size=fixed_size(shape))
    if options.preprocessing.scale is None and options.preprocessing.mean is None:
        notes.append("No preprocessing is stated: the graph gets the raw values of the dataset.")
    return Draft(
        network=net,
        module=OnnxModule(data, net),
        write=partial(_write, data),
        shape=shape,
        preprocessing=settled(options.preprocessing, own),
        parameters=graph.parameters,
        gives=gives,
        classes=classes,
        notes=notes,
    )


def _write(data: bytes, to: Path) -> None:
    to.write_bytes(data)


def _input(graph: GraphProto) -> tuple[OnnxNet, Dims]:
    constants = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in constants]
    if len(inputs) != 1:
        names = some([quoted(value.name) for value in inputs])
        detail = f"The graph takes {len(inputs)} inputs, {names}; one is needed."
        raise invalid("/file", "unclear_input", detail, "Export it with the rows as its only input.")
    kind, dims = inputs[0].type.tensor_type, _dims(inputs[0])
    if kind.elem_type not in _TYPES or dims is None or len(dims) not in (2, 4):
        detail = f"The input {quoted(inputs[0].name)} is neither rows × inputs nor images of numbers."
        raise invalid("/file", "unclear_input", detail, "Export it with an input of two or four axes.")
    net = OnnxNet.model_validate(
        {"input": inputs[0].name, "output": "", "dtype": _TYPES[kind.elem_type], "batch": dims[0]}
    )
    return net, dims


def _dims(value: ValueInfoProto) -> Dims | None:
    kind = value.type.tensor_type
    if not value.type.HasField("tensor_type") or not kind.HasField("shape"):
        return None
    return tuple(dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None for dim in kind.shape.dim)


def _output(graph: GraphProto, options: TeacherOptions) -> tuple[str, Literal["logits", "probabilities"], list[str]]:
    """Name of the output that scores classes, and what it gives. Logits go before probabilities, unless asked for."""
    scored = [value for value in graph.output if _scores(value)]
    if not scored:
        names = some([quoted(value.name) for value in graph.output]) or "none"
        detail = f"No output of the graph gives rows × classes of numbers, two classes or more; it has {names}."
        hint = "Export it with the logits as an output; a single one, as before a sigmoid, has to become [0, logit]."
        raise invalid("/file", "unclear_output", detail, hint)
    softmax = {value.name for value in scored if _ends_in_softmax(graph, value.name)}
    wants = options.outputs == "probabilities"
    chosen = next((value.name for value in scored if (value.name in softmax) == wants), scored[0].name)
    gives: Literal["logits", "probabilities"] = "probabilities" if chosen in softmax else "logits"
    if options.outputs != "auto":
        gives = options.outputs
    notes = []
    if others := [quoted(value.name) for value in graph.output if value.name != chosen]:
        notes.append(f"Outputs that are not used: {some(others)}.")
    return chosen, gives, notes


def _scores(value: ValueInfoProto) -> bool:
    dims = _dims(value)
    classes = dims is None or (len(dims) >= 2 and dims[1] != 1 and all(side in (None, 1) for side in dims[2:]))
    return value.type.HasField("tensor_type") and value.type.tensor_type.elem_type in _NUMBERS and classes


def _ends_in_softmax(graph: GraphProto, name: str) -> bool:
    makers: dict[str, NodeProto] = {output: node for node in graph.node for output in node.output}
    for _ in range(len(graph.node)):
        node = makers.get(name)
        if node is None or node.op_type not in _PASSING:
            return node is not None and node.op_type == "Softmax"
        name = node.input[0]
    return False


def loaded(path: Path, net: OnnxNet, limits: Limits) -> OnnxModule:
    """A stored graph, checked again. Raises InvalidData or TooLarge."""
    data = path.read_bytes()
    checked(parsed(data), limits)
    return OnnxModule(data, net)
