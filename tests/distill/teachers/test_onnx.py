"""ONNX graphs give what ONNX Runtime gives, whatever their axes and batch, and are judged before they are run."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from stillhouse.spec.limits import Limits
from stillhouse.spec.teachers import ForeignConfig, OnnxNet
from tests.distill.teachers.making import Axes, images, randomised, refused, stored, teacher

STATED = {"scale": 255, "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4]}


def small(classes: int = 5, channels: int = 3) -> nn.Module:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(channels, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2))
    return randomised(nn.Sequential(*body, nn.Flatten(), nn.Linear(32, classes)))


def exported(network: nn.Module, rows: Tensor, *, dynamic: bool = True) -> bytes:
    """What torch.onnx.export writes, in one file."""
    shapes = ({0: torch.export.Dim("rows", min=1, max=4096)},) if dynamic else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(network, (rows,), dynamo=True, dynamic_shapes=shapes, verbose=False)
    assert program is not None
    return program.model_proto.SerializeToString()  # type: ignore[no-any-return]


def graph(
    nodes: list[Any],
    shape: tuple[Any, ...] = ("n", 4),
    *,
    constants: dict[str, np.ndarray] | None = None,
    outputs: dict[str, tuple[Any, ...]] | None = None,
    kind: int = TensorProto.FLOAT,
    domains: tuple[tuple[str, int], ...] = (("", 20),),
) -> onnx.ModelProto:
    """A graph from `x` to `y`."""
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (outputs or {"y": ("n", 3)}).items()],
        [numpy_helper.from_array(value, name) for name, value in (constants or {"w": weight()}).items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid(d, v) for d, v in domains], ir_version=10)


def weight(rows: int = 4, columns: int = 3) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((rows, columns)).astype(np.float32)


MATMUL = helper.make_node("MatMul", ["x", "w"], ["y"])


def test_a_graph_gives_what_onnx_runtime_gives(tmp_path: Path) -> None:
    data = exported(small(), torch.zeros(2, 3, 16, 16))
    module, checked = teacher(data, tmp_path, preprocessing=STATED)
    x = images(7, 3, 16, 16)
    fed = (
        (x / 255 - torch.tensor(STATED["mean"]).view(1, 3, 1, 1)) / torch.tensor(STATED["std"]).view(1, 3, 1, 1)
    ).numpy()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    wanted = session.run(None, {session.get_inputs()[0].name: fed})[0]
    assert np.allclose(module(x).numpy(), wanted, atol=1e-5)
    assert isinstance(checked.config, ForeignConfig)
    assert checked.config.gives == "logits"
    assert checked.config.shape == (3, 16, 16)


def test_the_same_threads_give_the_same_bits(tmp_path: Path) -> None:
    module, _ = teacher(exported(small(), torch.zeros(2, 3, 16, 16)), tmp_path)
    x = images(9, 3, 16, 16)
    first = module(x)
    torch.set_num_threads(2)
    two = module(x)
    torch.set_num_threads(1)
    assert torch.equal(module(x), first)
    assert torch.allclose(two, first, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("rows", [1, 10, 23])
def test_a_batch_fixed_at_ten_takes_any_number_of_rows(rows: int, tmp_path: Path) -> None:
    network = small()
    module, checked = teacher(exported(network, torch.zeros(10, 3, 16, 16), dynamic=False), tmp_path)
    assert isinstance(checked.config, ForeignConfig)
    assert isinstance(checked.config.network, OnnxNet)
    assert checked.config.network.batch == 10
    x = images(rows, 3, 16, 16)
    with torch.no_grad():
        assert torch.allclose(module(x), network(x), rtol=1e-4, atol=1e-3)


def test_nhwc_is_found_from_the_shape(tmp_path: Path) -> None:
    network = small()
    module, checked = teacher(exported(Axes(network), torch.zeros(2, 16, 16, 3)), tmp_path)
    assert isinstance(checked.config, ForeignConfig)
    assert checked.config.preprocessing.layout == "nhwc"
    assert checked.config.shape == (3, 16, 16)
    x = images(3, 3, 16, 16)
    with torch.no_grad():
        assert torch.allclose(module(x), network(x), rtol=1e-4, atol=1e-3)


def test_images_of_another_size_are_resized(tmp_path: Path) -> None:
    network = small()
    module, _ = teacher(exported(network, torch.zeros(2, 3, 16, 16)), tmp_path)
    x = images(2, 3, 40, 24)
    resized = torch.nn.functional.interpolate(x, (16, 16), mode="bilinear", antialias=True)
    with torch.no_grad():
        assert torch.allclose(module(x), network(resized), rtol=1e-4, atol=1e-3)


def test_what_the_graph_leaves_open_is_stated(tmp_path: Path) -> None:
    pool = helper.make_node("GlobalAveragePool", ["x"], ["p"])
    flat = helper.make_node("Flatten", ["p"], ["f"])
    made = graph(
        [pool, flat, helper.make_node("MatMul", ["f", "w"], ["y"])], ("n", "c", "h", "w_"), constants={"w": weight(3)}
    )
    data = made.SerializeToString()
    error = refused(data, tmp_path)
    assert error.errors[0].pointer == "/options/preprocessing/layout"
    error = refused(data, tmp_path, preprocessing={"layout": "nchw"})
    assert error.errors[0].pointer == "/options/shape"
    config = stored(data, tmp_path, preprocessing={"layout": "nchw"}, shape=[3, 20, 20]).config
    assert isinstance(config, ForeignConfig)
    assert config.preprocessing.size == (20, 20)


def test_a_stated_shape_that_contradicts_the_graph_is_refused(tmp_path: Path) -> None:
    error = refused(graph([MATMUL]).SerializeToString(), tmp_path, shape=[5])
    assert (error.errors[0].pointer, error.errors[0].code) == ("/options/shape", "shape_misfit")


def test_probabilities_are_seen_by_the_softmax_and_become_logarithms(tmp_path: Path) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["s"]), helper.make_node("Softmax", ["s"], ["y"], axis=1)]
    module, checked = teacher(graph(nodes).SerializeToString(), tmp_path)
    assert isinstance(checked.config, ForeignConfig)
    assert checked.config.gives == "probabilities"
    x = torch.randn(5, 4)
    assert torch.allclose(module(x), (x @ torch.from_numpy(weight())).log_softmax(1), atol=1e-4)
    zero = module(torch.tensor([[1e4, -1e4, 1e4, -1e4]]))
    assert zero.isfinite().all()


def test_probabilities_are_seen_without_a_softmax_too(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["s"]),
        helper.make_node("Exp", ["s"], ["e"]),
        helper.make_node("ReduceSum", ["e", "axes"], ["t"], keepdims=1),
        helper.make_node("Div", ["e", "t"], ["y"]),
    ]
    data = graph(nodes, constants={"w": weight(), "axes": np.array([1])}).SerializeToString()
    module, checked = teacher(data, tmp_path)
    assert isinstance(checked.config, ForeignConfig)
    assert checked.config.gives == "probabilities"
    assert "The outputs are taken for probabilities." in checked.notes
    x = torch.randn(5, 4)
    assert torch.allclose(module(x), (x @ torch.from_numpy(weight())).log_softmax(1), atol=1e-4)


def test_logits_go_before_probabilities_unless_asked_for(tmp_path: Path) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["s"]), helper.make_node("Softmax", ["s"], ["y"], axis=1)]
    data = graph(nodes, outputs={"y": ("n", 3), "s": ("n", 3)}).SerializeToString()
    chosen = stored(data, tmp_path).config
    assert isinstance(chosen, ForeignConfig)
    assert isinstance(chosen.network, OnnxNet)
    assert (chosen.network.output, chosen.gives) == ("s", "logits")
    chosen = stored(data, tmp_path, outputs="probabilities").config
    assert isinstance(chosen, ForeignConfig)
    assert isinstance(chosen.network, OnnxNet)
    assert (chosen.network.output, chosen.gives) == ("y", "probabilities")


def test_logits_said_to_be_probabilities_are_refused(tmp_path: Path) -> None:
    error = refused(graph([MATMUL]).SerializeToString(), tmp_path, outputs="probabilities")
    assert (error.errors[0].pointer, error.errors[0].code) == ("/options/outputs", "not_probabilities")


@pytest.mark.parametrize(
    ("kind", "dtype"), [(TensorProto.FLOAT16, "float16"), (TensorProto.UINT8, "uint8"), (TensorProto.INT32, "int32")]
)
def test_inputs_of_other_types_are_converted(kind: int, dtype: str, tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["f", "w"], ["y"]),
    ]
    module, checked = teacher(graph(nodes, kind=kind).SerializeToString(), tmp_path)
    assert isinstance(checked.config, ForeignConfig)
    assert isinstance(checked.config.network, OnnxNet)
    assert checked.config.network.dtype == dtype
    x = torch.tensor([[1.0, 2.6, 250.0, 0.0]])
    fed = x.half().float() if dtype == "float16" else x.round()
    assert torch.allclose(module(x), fed @ torch.from_numpy(weight()), atol=1e-3)


def test_a_graph_on_tables_is_scaled_as_stated(tmp_path: Path) -> None:
    module, checked = teacher(graph([MATMUL]).SerializeToString(), tmp_path, preprocessing={"mean": [1], "std": [2]})
    assert isinstance(checked.config, ForeignConfig)
    assert checked.config.task == "tabular-classification"
    x = torch.randn(5, 4)
    assert torch.allclose(module(x), (x - 1) / 2 @ torch.from_numpy(weight()), atol=1e-5)


def external(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")


def external_in_a_constant(model: onnx.ModelProto) -> None:
    tensor = TensorProto(name="c", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="/etc/passwd")
    model.graph.node.insert(0, helper.make_node("Constant", [], ["c"], value=tensor))


def huge_dims(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].dims[:] = [2**40, 2**40]


def negative_dims(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].dims[:] = [-4, -3]


def nan_weights(model: onnx.ModelProto) -> None:
    value = weight()
    value[2, 1] = np.nan
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(value, "w"))


def custom_op(model: onnx.ModelProto) -> None:
    model.graph.node[0].domain = "com.evil"


def contrib_op(model: onnx.ModelProto) -> None:
    model.graph.node[0].domain = "com.microsoft"


def unknown_op(model: onnx.ModelProto) -> None:
    model.graph.node[0].op_type = "Frobnicate"


def new_opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 999


def old_opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 3


def function(model: onnx.ModelProto) -> None:
    model.functions.append(helper.make_function("f", "F", ["a"], ["b"], [], [helper.make_opsetid("", 20)]))


def hidden_in_a_branch(model: onnx.ModelProto) -> None:
    inner = helper.make_graph([helper.make_node("Evil", [], ["z"], domain="com.evil")], "then", [], [])
    model.graph.node.append(helper.make_node("If", ["x"], ["q"], then_branch=inner, else_branch=inner))


def loop(model: onnx.ModelProto) -> None:
    inner = helper.make_graph([], "body", [], [])
    model.graph.node.append(helper.make_node("Loop", ["", ""], ["q"], body=inner))


def random(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("RandomNormal", [], ["q"], shape=[1]))


def sparse(model: onnx.ModelProto) -> None:
    model.graph.sparse_initializer.add()


def no_nodes(model: onnx.ModelProto) -> None:
    del model.graph.node[:]


def dangling(model: onnx.ModelProto) -> None:
    model.graph.node[0].input[1] = "nowhere"


def two_inputs(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("other", TensorProto.FLOAT, ("n", 4)))


def strings(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.STRING


def three_axes(model: onnx.ModelProto) -> None:
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", TensorProto.FLOAT, ("n", 4, 4)))


def one_class(model: onnx.ModelProto) -> None:
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, ("n", 1)))


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        (external, "external_data", "../../etc/passwd"),
        (external_in_a_constant, "external_data", "/etc/passwd"),
        (huge_dims, "corrupt_graph", "1099511627776×1099511627776"),
        (negative_dims, "corrupt_graph", "'w'"),
        (nan_weights, "weights_not_finite", "'w'"),
        (custom_op, "custom_op", "com.evil::MatMul"),
        (contrib_op, "custom_op", "com.microsoft"),
        (unknown_op, "custom_op", "Frobnicate"),
        (hidden_in_a_branch, "custom_op", "com.evil::Evil"),
        (function, "custom_op", "'F'"),
        (new_opset, "unsupported_opset", "999"),
        (old_opset, "unsupported_opset", "3"),
        (loop, "unsupported_op", "Loop"),
        (random, "random_outputs", "RandomNormal"),
        (sparse, "unsupported_op", "sparse"),
        (no_nodes, "corrupt_graph", "no ONNX graph"),
        (dangling, "corrupt_graph", "topologically sorted"),
        (two_inputs, "unclear_input", "'other'"),
        (strings, "unclear_input", "'x'"),
        (three_axes, "unclear_input", "'x'"),
        (one_class, "unclear_output", "'y'"),
    ],
)
def test_a_graph_that_cannot_be_trusted_or_used_is_refused(
    change: Callable[[onnx.ModelProto], None], code: str, said: str, tmp_path: Path
) -> None:
    model = graph([MATMUL])
    change(model)
    error = refused(model.SerializeToString(), tmp_path)
    assert error.errors[0].code == code
    assert said in str(error)


def test_infinity_in_a_mask_and_a_nan_to_fill_with_are_no_weights(tmp_path: Path) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["s"]), helper.make_node("Where", ["c", "s", "f"], ["y"])]
    constants = {
        "w": weight(),
        "c": np.ones((1, 3), bool),
        "f": np.array(np.nan, np.float32),
        "m": np.full((2, 2), -np.inf, np.float32),
    }
    assert stored(graph(nodes, constants=constants).SerializeToString(), tmp_path).format == "onnx"


def test_a_truncated_graph_is_refused(tmp_path: Path) -> None:
    data = exported(small(), torch.zeros(2, 3, 16, 16))
    for length in (1, len(data) // 2, len(data) - 1):
        assert refused(data[:length], tmp_path).errors[0].code == "corrupt_graph"


def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    data = graph([MATMUL]).SerializeToString()
    assert refused(data.replace(b"MatMul", b"Mat\xfful"), tmp_path).errors[0].code == "corrupt_graph"


def test_a_graph_with_more_numbers_than_the_limit_is_refused(tmp_path: Path) -> None:
    error = refused(graph([MATMUL]).SerializeToString(), tmp_path, Limits(max_teacher_parameters=11))
    assert error.errors[0].code == "too_many_parameters"


def test_nan_outputs_are_refused(tmp_path: Path) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["s"]), helper.make_node("Sqrt", ["s"], ["y"])]
    error = refused(graph(nodes).SerializeToString(), tmp_path)
    assert error.errors[0].code == "outputs_not_finite"


def test_wrong_channels_are_refused_with_what_the_graph_takes(tmp_path: Path) -> None:
    data = exported(small(channels=3), torch.zeros(2, 3, 16, 16))
    error = refused(data, tmp_path, shape=[1, 16, 16])
    assert (error.errors[0].pointer, error.errors[0].code) == ("/options/shape", "shape_misfit")
    assert "[3, 16, 16]" in error.detail
    error = refused(data, tmp_path, preprocessing={"mean": [0.1, 0.2]})
    assert error.errors[0].pointer == "/options/preprocessing/mean"


def test_wrong_class_count_is_refused(tmp_path: Path) -> None:
    error = refused(graph([MATMUL]).SerializeToString(), tmp_path, classes=["a", "b", "c", "d"])
    assert (error.errors[0].pointer, error.errors[0].code) == ("/options/classes", "wrong_classes")
    assert "3 classes" in error.detail
