"""An ONNX graph with its tensors in files beside it is, in a ZIP, what it is in one file; and it reaches nowhere."""

import io
import stat
import warnings
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from stillhouse.spec.limits import Limits
from tests.distill.teachers.making import archive, folder_archive, images, refused, stored, teacher
from tests.distill.teachers.test_onnx import graph, small
from tests.linear import elsewhere, lie, linear

DATA = np.arange(12, dtype=np.float32).tobytes()


def folder(*, data: bytes = DATA, name: str = "w.data", beside: dict[str, bytes] | None = None, **says: str) -> bytes:
    """A ZIP of the linear graph, whose tensor `says` where it lies, and of the file with its bytes."""
    says = {"location": "w.data", "offset": "0", "length": "48"} | says
    return archive({"model.onnx": linear(change=partial(elsewhere, **says)), name: data, **(beside or {})})


def exported(home: Path, *, external: bool) -> Path:
    """What torch.onnx.export leaves in a folder: model.onnx, and model.onnx.data."""
    home.mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            small(classes=40),
            (torch.zeros(2, 3, 16, 16),),
            home / "model.onnx",
            dynamo=True,
            external_data=external,
            verbose=False,
        )
    return home


def test_what_torch_exports_in_two_files_is_the_teacher_it_exports_in_one(tmp_path: Path) -> None:
    two, one = exported(tmp_path / "two", external=True), exported(tmp_path / "one", external=False)
    assert sorted(path.name for path in two.iterdir()) == ["model.onnx", "model.onnx.data"]
    places = [tmp_path / name for name in ("a", "b", "c")]
    for place in places:
        place.mkdir()
    merged, checked = teacher(folder_archive(two), places[0])
    inline, single = teacher((one / "model.onnx").read_bytes(), places[1])
    assert (checked.sha256, checked.config, checked.format) == (single.sha256, single.config, "onnx")
    x = images(5, 3, 16, 16)
    assert torch.equal(merged(x), inline(x))
    named = stored(folder_archive(two, prefix="my-model/"), places[2], format="onnx")
    assert (named.sha256, named.notes) == (checked.sha256, checked.notes)


def test_tensors_lie_in_several_files_below_the_graph_and_some_in_constants(tmp_path: Path) -> None:
    bias = np.array([1, 2, 3], np.float32)
    value = TensorProto(name="b", data_type=TensorProto.FLOAT, dims=[3])
    lie(value, location="./more/b", offset="4")  # without a length: all that follows
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["s"]),
        helper.make_node("Constant", [], ["b"], value=value),
        helper.make_node("Add", ["s", "b"], ["y"]),
    ]
    model = graph(nodes)
    weights = np.frombuffer(model.graph.initializer[0].raw_data, np.float32).reshape(4, 3)
    lie(model.graph.initializer[0], location="w")
    deep = "/".join("d" * 200)
    members = {"m.onnx": model.SerializeToString(), "w": weights.tobytes(), "more/b": b"\xff" * 4 + bias.tobytes()}
    module, checked = teacher(archive({f"{deep}/{name}": data for name, data in members.items()}), tmp_path)
    x = torch.randn(5, 4)
    assert torch.allclose(module(x), x @ torch.from_numpy(weights.copy()) + torch.from_numpy(bias), atol=1e-5)
    assert checked.config.parameters == 15


def branch(name: str, location: str) -> onnx.GraphProto:
    """A graph inside a graph: a constant of [3] that lies at `location`, given on by one inside it."""
    value = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[3])
    lie(value, location=location)
    shape = helper.make_tensor_value_info(name, TensorProto.FLOAT, [3])
    return helper.make_graph([helper.make_node("Constant", [], [name], value=value)], name, [], [shape])


def test_tensors_of_graphs_inside_the_graph_are_found_too(tmp_path: Path) -> None:
    choice = helper.make_node("If", ["c"], ["b"], then_branch=branch("t", "then"), else_branch=branch("e", "else"))
    nodes = [helper.make_node("MatMul", ["x", "w"], ["s"]), choice, helper.make_node("Add", ["s", "b"], ["y"])]
    weights = np.ones((4, 3), np.float32)
    data = graph(nodes, constants={"w": weights, "c": np.array(False)}).SerializeToString()
    bias = np.array([1, 2, 3], np.float32)
    module, _ = teacher(archive({"m.onnx": data, "then": bytes(12), "else": bias.tobytes()}), tmp_path)
    x = torch.randn(5, 4)
    assert torch.allclose(module(x), x.sum(1, keepdim=True) + torch.from_numpy(bias), atol=1e-5)


def test_what_finder_packs_beside_a_folder_does_not_say_what_it_is(tmp_path: Path) -> None:
    finder = {"__MACOSX/._model.safetensors": b"\0", "__MACOSX/._model.onnx": b"\0"}
    assert stored(archive({"model.onnx": linear()} | finder), tmp_path).format == "onnx"
    (tmp_path / "stored").unlink()
    error = refused(archive({"config.json": b"{}", "pytorch_model.bin": b""} | finder), tmp_path)
    assert "pytorch_model.bin" in str(error)


def test_a_graph_in_a_zip_needs_no_data_files_and_other_files_are_named(tmp_path: Path) -> None:
    content = {"model.onnx": linear(), "README.md": b"#", "config.json": b"{}", "__MACOSX/._model.onnx": b"\0"}
    checked = stored(archive(content), tmp_path)
    assert (tmp_path / "stored").read_bytes() == linear()
    assert "Files of the archive that are not used: 'README.md', 'config.json'." in checked.notes


def test_the_weights_of_transformers_go_before_a_graph_beside_them(tmp_path: Path) -> None:
    data = archive({"model.onnx": linear(), "config.json": b"{}", "model.safetensors": b""})
    assert refused(data, tmp_path).errors[0].code != "several_models"
    assert refused(data, tmp_path, format="onnx").errors[0].code == "format_mismatch"


def symlink() -> bytes:
    link = zipfile.ZipInfo("w.data")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    out = io.BytesIO(archive({"model.onnx": linear(change=partial(elsewhere, location="w.data"))}))
    with zipfile.ZipFile(out, "a") as packed:
        packed.writestr(link, "/etc/passwd")
    return out.getvalue()


def negative(model: onnx.ModelProto) -> None:
    elsewhere(model, location="w.data")
    model.graph.initializer[0].dims[:] = [-4, -3]


def text(model: onnx.ModelProto) -> None:
    elsewhere(model, location="w.data")
    model.graph.initializer[0].data_type = TensorProto.STRING


def packed(change: Callable[[onnx.ModelProto], None]) -> bytes:
    return archive({"model.onnx": linear(change=change), "w.data": DATA})


NAN = np.full(12, np.nan, np.float32).tobytes()
HOSTILE: dict[str, tuple[bytes, str, str]] = {
    "an absolute location": (folder(location="/etc/passwd"), "external_data", "'/etc/passwd'"),
    "a location above": (folder(location="../../../../etc/passwd"), "external_data", "'../../../../etc/passwd'"),
    "a location above, by a detour": (folder(location="a/../../w.data"), "external_data", "'a/../../w.data'"),
    "a location that stays inside, by a detour": (folder(location="a/../w.data"), "external_data", "'a/../w.data'"),
    "a Windows drive": (folder(location="C:w.data"), "external_data", "'C:w.data'"),
    "backslashes": (folder(location="..\\w.data"), "external_data", "w.data"),
    "no location": (folder(location=""), "external_data", "''"),
    "the graph itself": (folder(location="model.onnx"), "external_data", "is the graph itself"),
    "the graph itself, with a dot": (folder(location="./model.onnx"), "external_data", "is the graph itself"),
    "a missing file": (folder(location="other.data"), "missing_member", "'other.data'"),
    "a folder": (folder(location="d", beside={"d/": b""}), "missing_member", "'d'"),
    "the folder of the graph": (folder(location="."), "missing_member", "'.'"),
    "a file above the graph": (
        archive({"m/g.onnx": linear(change=partial(elsewhere, location="w.data")), "w.data": DATA}),
        "missing_member",
        "'w.data'",
    ),
    "a member above": (folder(name="../w.data"), "unsafe_name", "'../w.data'"),
    "a symbolic link": (symlink(), "special_member", "'w.data'"),
    "an offset past the end": (folder(offset="1000000000000"), "corrupt_tensors", "1,000,000,000,000"),
    "an offset past the end, without a length": (
        archive({"model.onnx": linear(change=partial(elsewhere, location="w.data", offset="99")), "w.data": DATA}),
        "corrupt_tensors",
        "which has 48",
    ),
    "a huge length": (folder(length="999999999999999999"), "corrupt_tensors", "which has 48"),
    "a length of 100 digits": (folder(length="9" * 100), "corrupt_tensors", "no number of bytes"),
    "a negative offset": (folder(offset="-48"), "corrupt_tensors", "'-48'"),
    "an offset in other digits": (folder(offset="\u0664\u0668"), "corrupt_tensors", "offset"),
    "a length of nothing": (folder(length=""), "corrupt_tensors", "length ''"),
    "a file that is too short": (folder(data=DATA[:-1]), "corrupt_tensors", "which has 47"),
    "more than the shape": (folder(data=DATA * 2, length="96"), "corrupt_tensors", "'w' has 96 bytes"),
    "less than the shape": (folder(length="44"), "corrupt_tensors", "4×3 numbers take 48"),
    "more than the shape, without a length": (
        archive({"model.onnx": linear(change=partial(elsewhere, location="w.data")), "w.data": DATA * 2}),
        "corrupt_tensors",
        "'w' has 96 bytes",
    ),
    "a negative shape": (packed(negative), "corrupt_tensors", "-4×-3"),
    "text": (packed(text), "corrupt_tensors", "no type"),
    "NaN weights": (folder(data=NAN), "weights_not_finite", "'w'"),
    "two graphs": (folder(beside={"b.onnx": linear()}), "several_models", "'b.onnx', 'model.onnx'"),
    "a graph in each of two folders": (archive({"a/m.onnx": b"", "b/m.ONNX": b""}), "several_models", "'b/m.ONNX'"),
    "a graph of nothing": (archive({"m.onnx": b""}), "corrupt_graph", "no ONNX graph"),
    "a name that is no text": (
        archive({"m.onnx": linear(change=partial(elsewhere, location="w.data")).replace(b"w.data", b"w\xffdata")}),
        "corrupt_graph",
        "graph",
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_folder_that_reaches_out_or_lies_is_refused_with_the_tensor_and_the_place(case: str, tmp_path: Path) -> None:
    data, code, said = HOSTILE[case]
    error = refused(data, tmp_path)
    assert error.errors[0].code == code
    assert said in str(error)
    assert error.hint
    if code in ("external_data", "missing_member", "corrupt_tensors"):
        assert error.errors[0].pointer == "/file/tensors/w"


def shared(count: int) -> bytes:
    """Tensors of a megabyte, all in the same bytes of one file."""

    def change(model: onnx.ModelProto) -> None:
        for number in range(count):
            tensor = TensorProto(name=f"t{number}", data_type=TensorProto.FLOAT, dims=[1 << 18])
            lie(tensor, location="t.data", offset="0", length=str(1 << 20))
            model.graph.initializer.append(tensor)

    return archive({"model.onnx": linear(change=change), "t.data": bytes(1 << 20)})


def test_a_graph_that_would_grow_beyond_what_one_may_have_is_refused_before_it_does(tmp_path: Path) -> None:
    error = refused(shared(2048), tmp_path)
    assert (error.errors[0].code, error.status) == ("too_many_bytes", 413)
    assert "2,147,482,624" in str(error)
    few: dict[str, Any] = {"max_expanded_bytes": 2 << 20}
    assert refused(shared(2), tmp_path, Limits(**few)).errors[0].code == "too_many_bytes"
    assert stored(shared(1), tmp_path, Limits(**few)).config.parameters == 12 + (1 << 18)


def test_a_damaged_data_file_is_refused(tmp_path: Path) -> None:
    data = folder().replace(DATA, DATA[:-1] + b"?")
    assert refused(data, tmp_path).errors[0].code == "corrupt_member"


def test_a_bare_graph_with_its_data_elsewhere_is_told_of_the_zip(tmp_path: Path) -> None:
    error = refused(linear(change=partial(elsewhere, location="w.data")), tmp_path)
    assert error.errors[0].code == "external_data"
    assert "upload a ZIP of the folder with the graph and its data file" in str(error.hint)
    tensor_that_says_both = linear(change=lambda model: model.graph.initializer[0].external_data.add(key="location"))
    for data in (tensor_that_says_both, archive({"m.onnx": tensor_that_says_both})):
        assert refused(data, tmp_path).errors[0].code == "external_data"
