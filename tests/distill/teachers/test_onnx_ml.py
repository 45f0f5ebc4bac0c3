"""Graphs of classical models, as converters of scikit-learn write them, teach like any other graph."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from stillhouse.spec.limits import Limits
from stillhouse.spec.teachers import ForeignConfig
from tests.distill.teachers.making import refused, stored, teacher

ML = "ai.onnx.ml"
NAMES = ["setosa", "virginica"]


def graph(model: Any, *before: Any, labels: dict[str, Any] | None = None) -> onnx.ModelProto:
    """`x` [n, 3] → the label, as text, and a list of dictionaries of probabilities."""
    label = helper.make_node("Identity", ["label"], ["output_label"])
    said = helper.make_node("ZipMap", ["scores"], ["said"], domain=ML, **(labels or {"classlabels_strings": NAMES}))
    # Networks of scikit-learn look their label up in a constant of texts.
    texts = numpy_helper.from_array(np.array([name.encode() for name in NAMES], dtype=object), "texts")
    found = helper.make_node("Identity", ["texts"], ["known"])
    of_dictionaries = helper.make_sequence_type_proto(
        helper.make_map_type_proto(TensorProto.STRING, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    )
    kind = TensorProto.INT64 if labels else TensorProto.STRING
    made = helper.make_graph(
        [*before, model, label, found, said],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (None, 3))],
        [
            helper.make_tensor_value_info("output_label", kind, (None,)),
            helper.make_tensor_value_info("known", TensorProto.STRING, (2,)),
            helper.make_value_info("said", of_dictionaries),
        ],
        [texts],
    )
    domains = [helper.make_opsetid("", 20), helper.make_opsetid(ML, 1)]
    return helper.make_model(made, opset_imports=domains, ir_version=10)


def trees(rows: str = "x", labels: dict[str, Any] | None = None, **changes: Any) -> Any:
    """Two stumps, the second on column 2."""
    lists = {
        "nodes_treeids": [0, 0, 0, 1, 1, 1],
        "nodes_nodeids": [0, 1, 2, 0, 1, 2],
        "nodes_featureids": [0, 0, 0, 2, 0, 0],
        "nodes_values": [0.25, 0.0, 0.0, -0.5, 0.0, 0.0],
        "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"] * 2,
        "nodes_truenodeids": [1, 0, 0, 1, 0, 0],
        "nodes_falsenodeids": [2, 0, 0, 2, 0, 0],
        "class_treeids": [0, 0, 0, 0, 1, 1, 1, 1],
        "class_nodeids": [1, 1, 2, 2, 1, 1, 2, 2],
        "class_ids": [0, 1] * 4,
        "class_weights": [0.4, 0.1, 0.05, 0.45, 0.3, 0.2, 0.25, 0.25],
        **(labels or {"classlabels_strings": NAMES}),
        **changes,
    }
    return helper.make_node("TreeEnsembleClassifier", [rows], ["label", "scores"], domain=ML, **lists)


def linear(**changes: Any) -> Any:
    lists = {
        "coefficients": [1.0, -2.0, 0.5, -1.0, 2.0, -0.5],
        "intercepts": [0.1, -0.1],
        "classlabels_strings": NAMES,
        "post_transform": "SOFTMAX",
        **changes,
    }
    return helper.make_node("LinearClassifier", ["x"], ["label", "scores"], domain=ML, **lists)


SCALED = helper.make_node("Scaler", ["x"], ["scaled"], domain=ML, offset=[0.1, 0.2, 0.3], scale=[2.0, 1.0, 0.5])


@pytest.mark.parametrize("model", [graph(trees()), graph(linear()), graph(trees("scaled"), SCALED)])
def test_a_model_of_scikit_learn_says_what_onnx_runtime_says(model: onnx.ModelProto, tmp_path: Path) -> None:
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    wanted = [[row[name] for name in NAMES] for row in session.run(["said"], {"x": x.numpy()})[0]]
    module, checked = teacher(model.SerializeToString(), tmp_path)
    assert isinstance(checked.config, ForeignConfig)
    assert (checked.config.gives, checked.config.classes) == ("probabilities", tuple(NAMES))
    assert checked.config.parameters > 0
    assert torch.allclose(module(x).softmax(1), torch.tensor(wanted), atol=1e-5)


@pytest.mark.parametrize(("numbers", "names"), [([0, 1], None), ([3, 7], ("3", "7"))])
def test_numbered_classes_have_names_where_they_are_more_than_counted(
    numbers: list[int], names: tuple[str, ...] | None, tmp_path: Path
) -> None:
    inside, outside = {"classlabels_int64s": numbers}, {"classlabels_int64s": numbers}
    model = graph(trees(labels=inside), labels=outside)
    assert stored(model.SerializeToString(), tmp_path).config.classes == names  # type: ignore[union-attr]


def support_vectors() -> Any:
    return helper.make_node("SVMClassifier", ["x"], ["label", "scores"], domain=ML, classlabels_strings=NAMES)


def other_columns() -> Any:
    return trees(nodes_featureids=[0, 0, 0, 3, 0, 0])


def without_end() -> Any:
    modes = ["BRANCH_LEQ", "BRANCH_LEQ", "LEAF", "BRANCH_LEQ", "LEAF", "LEAF"]
    return trees(nodes_modes=modes, nodes_truenodeids=[1, 0, 0, 1, 0, 0], nodes_falsenodeids=[2, 2, 0, 2, 0, 0])


@pytest.mark.parametrize(
    ("model", "code", "said"),
    [
        (support_vectors, "custom_op", "SVMClassifier"),
        (other_columns, "corrupt_graph", "column 3"),
        (without_end, "corrupt_graph", "never ends"),
        (lambda: trees(nodes_falsenodeids=[9, 0, 0, 2, 0, 0]), "corrupt_graph", "not there"),
        (lambda: trees(class_ids=[0, 2] * 4), "corrupt_graph", "votes"),
        (lambda: trees(class_nodeids=[1, 1, 2, 2, 1, 1, 2, 5]), "corrupt_graph", "votes"),
        (lambda: trees(nodes_values=[0.25]), "corrupt_graph", "belong together"),
        (lambda: trees(class_weights=[0.4]), "corrupt_graph", "belong together"),
        (lambda: linear(coefficients=[1.0, 2.0]), "corrupt_graph", "3 columns"),
    ],
)
def test_a_model_whose_lists_lead_astray_is_refused(
    model: Callable[[], Any], code: str, said: str, tmp_path: Path
) -> None:
    error = refused(graph(model()).SerializeToString(), tmp_path)
    assert error.errors[0].code == code
    assert said in str(error)


def test_a_graph_damaged_where_its_scores_are_looked_for_is_named_so(tmp_path: Path) -> None:
    model = graph(trees())
    del model.graph.node[-1].input[:]
    assert refused(model.SerializeToString(), tmp_path).errors[0].code == "corrupt_graph"


def test_the_numbers_of_trees_count_though_a_graph_has_no_tensors(tmp_path: Path) -> None:
    error = refused(graph(trees()).SerializeToString(), tmp_path, Limits(max_teacher_parameters=50))
    assert error.errors[0].code == "too_many_parameters"
