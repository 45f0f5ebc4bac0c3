"""Programs of torch.export give what the exported module gives, and never run anything but a list of operators."""

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from distill.teachers.aten import MUST_BE_FALSE, NAMES, operator_of
from stillhouse.spec.teachers import ExportedNet, ForeignConfig
from tests.distill.teachers.making import Axes, archive, images, normalised, randomised, refused, stored, teacher

IMAGENET_STATED = {"scale": 255, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def pt2(network: nn.Module, rows: Tensor, *, dynamic: bool = True) -> bytes:
    """What torch.export.save writes."""
    shapes = ({0: torch.export.Dim("rows", min=1, max=4096)},) if dynamic else None
    out = io.BytesIO()
    torch.export.save(torch.export.export(network, (rows,), dynamic_shapes=shapes), out)
    return out.getvalue()


def small(classes: int = 5) -> nn.Module:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten())
    return randomised(nn.Sequential(*body, nn.Linear(8 * 8 * 8, classes)))


def edited(data: bytes, change: Callable[[dict[str, Any]], None], member: str = "models/model.json") -> bytes:
    """The archive with a JSON member changed."""
    with zipfile.ZipFile(io.BytesIO(data)) as given:
        members = {name: given.read(name) for name in given.namelist()}
    name = next(name for name in members if name.endswith(member))
    content = json.loads(members[name])
    change(content)
    return archive({**members, name: json.dumps(content)})


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("resnet10t", {}),
        ("vit_tiny_patch16_224", {"img_size": 32, "depth": 2}),
        ("mobilenetv3_small_050", {}),
        ("convnext_atto", {"depths": (1, 1, 1, 1)}),
        ("swin_tiny_patch4_window7_224", {"img_size": 32, "window_size": 4, "depths": (1, 1), "embed_dim": 24}),
        ("mixer_s16_224", {"img_size": 32}),
        ("efficientnet_lite0", {}),
        ("regnetx_002", {}),
        ("densenet121", {}),
        ("ghostnet_050", {}),
        ("xcit_nano_12_p16_224", {"depth": 2}),
    ],
)
def test_programs_of_many_families_give_exactly_what_the_network_gives(
    name: str, more: dict[str, Any], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    network = randomised(timm.create_model(name, num_classes=6, **more))
    side = more.get("img_size", 32)
    module, checked = teacher(pt2(network, torch.zeros(2, 3, side, side)), tmp_path, preprocessing=IMAGENET_STATED)
    x = images(3, 3, side, side)
    with torch.no_grad():
        wanted = network(normalised(x, **IMAGENET))
    assert torch.allclose(module(x), wanted, atol=1e-5)
    assert isinstance(checked.config, ForeignConfig)
    assert checked.config.shape == (3, side, side)
    assert checked.config.outputs == 6


def test_a_program_for_ten_rows_takes_any_number(tmp_path: Path) -> None:
    network = small()
    module, checked = teacher(pt2(network, torch.zeros(10, 3, 8, 8), dynamic=False), tmp_path)
    assert isinstance(checked.config, ForeignConfig)
    assert checked.config.network == ExportedNet(batch=10)
    for count in (1, 10, 23):
        x = images(count, 3, 8, 8)
        with torch.no_grad():
            assert torch.allclose(module(x), network(x), atol=1e-4)


def test_images_are_resized_to_the_size_a_program_was_made_for(tmp_path: Path) -> None:
    module, checked = teacher(pt2(small(), torch.zeros(2, 3, 8, 8)), tmp_path)
    assert isinstance(checked.config, ForeignConfig)
    assert checked.config.preprocessing.size == (8, 8)
    assert module(images(2, 3, 40, 30)).shape == (2, 5)


def test_a_program_that_ends_in_a_softmax_gives_log_probabilities(tmp_path: Path) -> None:
    network = nn.Sequential(small(), nn.Softmax(dim=1)).eval()
    module, checked = teacher(pt2(network, torch.zeros(2, 3, 8, 8)), tmp_path)
    assert isinstance(checked.config, ForeignConfig)
    assert checked.config.gives == "probabilities"
    x = images(4, 3, 8, 8)
    with torch.no_grad():
        assert torch.allclose(module(x).softmax(1), network(x), atol=1e-5)


def test_a_program_on_tables(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    options = {"preprocessing": {"mean": [1, 2, 3, 4], "std": [2, 2, 2, 2]}}
    module, checked = teacher(pt2(network, torch.zeros(2, 4)), tmp_path, **options)
    assert isinstance(checked.config, ForeignConfig)
    assert checked.config.task == "tabular-classification"
    x = torch.randn(5, 4)
    with torch.no_grad():
        assert torch.allclose(module(x), network((x - torch.tensor([1.0, 2, 3, 4])) / 2), atol=1e-5)


def test_a_half_precision_program_is_fed_what_it_takes(tmp_path: Path) -> None:
    network = small().half()
    module, _ = teacher(pt2(network, torch.zeros(2, 3, 8, 8).half()), tmp_path, preprocessing={"scale": 255})
    x = images(3, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(module(x), network((x / 255).half()).float())


def test_a_program_in_nhwc_is_seen_and_fed_so(tmp_path: Path) -> None:
    network = small()
    module, checked = teacher(pt2(Axes(network), torch.zeros(2, 8, 8, 3)), tmp_path)
    assert isinstance(checked.config, ForeignConfig)
    assert checked.config.preprocessing.layout == "nhwc"
    assert checked.config.shape == (3, 8, 8)
    x = images(3, 3, 8, 8)
    with torch.no_grad():
        assert torch.allclose(module(x), network(x), atol=1e-4)


class Drops(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.nn.functional.dropout(x.flatten(1), 0.5, training=True)[:, :5]


class Draws(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :5] + torch.rand(5)


class Attends(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(2)
        return torch.nn.functional.scaled_dot_product_attention(x, x, x, dropout_p=0.5)[:, 0, :5]


class Counts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(5))

    def forward(self, x: Tensor) -> Tensor:
        self.seen.add_(1)
        return x.flatten(1)[:, :5] + self.seen


class Two(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x.flatten(1)[:, :5], x.flatten(1)[:, 5:8]


@pytest.mark.parametrize(
    ("network", "code"),
    [
        (Drops(), "random_outputs"),
        (Draws(), "custom_op"),
        (Two(), "unclear_output"),
        (Attends(), "random_outputs"),
        (Counts(), "random_outputs"),
        (small().train(), "random_outputs"),
    ],
)
def test_programs_that_cannot_teach_are_refused(network: nn.Module, code: str, tmp_path: Path) -> None:
    error = refused(pt2(network, torch.rand(2, 3, 8, 8)), tmp_path)
    assert code in {entry.code for entry in error.errors}


EVIL = "__import__('os').system('touch owned')"


def evil_target(content: dict[str, Any]) -> None:
    content["graph_module"]["graph"]["nodes"][0]["target"] = "torch.ops.aten.from_file.default"


def evil_getattr(content: dict[str, Any]) -> None:
    content["graph_module"]["graph"]["nodes"][0]["target"] = "torch.serialization.load"


def evil_expression(content: dict[str, Any]) -> None:
    values = content["graph_module"]["graph"]["sym_int_values"]
    values["evil"] = {"as_expr": {"expr_str": EVIL, "hint": None}}


def evil_dunder(content: dict[str, Any]) -> None:
    values = content["graph_module"]["graph"]["sym_int_values"]
    values["evil"] = {"as_expr": {"expr_str": "Symbol('s1').__class__", "hint": None}}


def evil_overload(content: dict[str, Any]) -> None:
    content["graph_module"]["graph"]["nodes"][0]["target"] = "torch.ops.aten.conv2d.__class__"


def evil_graph(content: dict[str, Any]) -> None:
    content["graph_module"]["graph"]["nodes"][0]["inputs"][0]["arg"] = {"as_graph": {"name": "g", "graph": {}}}


def unknown_name(content: dict[str, Any]) -> None:
    content["graph_module"]["graph"]["nodes"][0]["inputs"][0]["arg"] = {"as_tensor": {"name": "nowhere"}}


def other_schema(content: dict[str, Any]) -> None:
    content["schema_version"]["major"] = 99


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (evil_target, "custom_op"),
        (evil_getattr, "custom_op"),
        (evil_overload, "custom_op"),
        (evil_expression, "unsafe_expression"),
        (evil_dunder, "unsafe_expression"),
        (evil_graph, "corrupt_program"),
        (unknown_name, "corrupt_program"),
        (other_schema, "corrupt_program"),
        (lambda content: content.clear(), "corrupt_program"),
    ],
)
def test_a_program_that_reaches_for_anything_else_is_refused(
    change: Callable[[dict[str, Any]], None], code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert refused(edited(pt2(small(), torch.zeros(2, 3, 8, 8)), change), tmp_path).errors[0].code == code


def pickled_weight(content: dict[str, Any]) -> None:
    next(iter(content["config"].values()))["use_pickle"] = True


def custom_object(content: dict[str, Any]) -> None:
    next(iter(content["config"].values()))["path_name"] = "custom_obj_0"


def climbing(content: dict[str, Any]) -> None:
    next(iter(content["config"].values()))["path_name"] = "../constants/weight_0"


def too_large(content: dict[str, Any]) -> None:
    next(iter(content["config"].values()))["tensor_meta"]["sizes"][0] = {"as_int": 10**12}


def repeated(content: dict[str, Any]) -> None:
    meta = next(iter(content["config"].values()))["tensor_meta"]
    meta["sizes"], meta["strides"] = [{"as_int": 10**12}], [{"as_int": 0}]


def other_type(content: dict[str, Any]) -> None:
    next(iter(content["config"].values()))["tensor_meta"]["dtype"] = 8


def beyond(content: dict[str, Any]) -> None:
    next(iter(content["config"].values()))["tensor_meta"]["storage_offset"] = {"as_int": 1}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (pickled_weight, "unsafe_pickle"),
        (custom_object, "custom_op"),
        (climbing, "custom_op"),
        (too_large, "corrupt_tensors"),
        (repeated, "corrupt_tensors"),
        (other_type, "corrupt_tensors"),
        (beyond, "corrupt_tensors"),
        (lambda content: content["config"].popitem(), "missing_tensors"),
    ],
)
def test_weights_that_lie_about_themselves_are_refused(
    change: Callable[[dict[str, Any]], None], code: str, tmp_path: Path
) -> None:
    data = edited(pt2(small(), torch.zeros(2, 3, 8, 8)), change, "model_weights_config.json")
    assert refused(data, tmp_path).errors[0].code == code


def test_nan_in_the_weights_is_refused_and_infinity_in_a_mask_is_not(tmp_path: Path) -> None:
    masked = Masked()
    module, _ = teacher(pt2(masked.eval(), torch.zeros(2, 3, 8, 8)), tmp_path)
    assert module(images(2, 3, 8, 8)).isfinite().all()
    network = small()
    network[0].weight.data[0, 0, 0, 0] = torch.nan
    (tmp_path / "other").mkdir()
    error = refused(pt2(network, torch.zeros(2, 3, 8, 8)), tmp_path / "other")
    assert (error.errors[0].pointer, error.errors[0].code) == ("/file/tensors/0.weight", "weights_not_finite")


class Masked(nn.Module):
    """A maximum over the part of an image that a mask of minus infinity leaves."""

    def __init__(self) -> None:
        super().__init__()
        mask = torch.zeros(8, 8)
        mask[4:] = -torch.inf
        self.register_buffer("mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.mask).amax((2, 3))  # type: ignore[no-any-return]


def test_compiled_code_in_the_archive_is_refused(tmp_path: Path) -> None:
    data = pt2(small(), torch.zeros(2, 3, 8, 8))
    with zipfile.ZipFile(io.BytesIO(data)) as given:
        members = {name: given.read(name) for name in given.namelist()}
    top = next(iter(members)).partition("/")[0]
    error = refused(archive({**members, f"{top}/data/aotinductor/model/evil.so": b"\x7fELF"}), tmp_path)
    assert error.errors[0].code == "custom_code"


def test_a_pickle_of_sample_inputs_is_never_opened(tmp_path: Path) -> None:
    data = pt2(small(), torch.zeros(2, 3, 8, 8))
    with zipfile.ZipFile(io.BytesIO(data)) as given:
        members = {name: given.read(name) for name in given.namelist()}
    name = next(name for name in members if name.endswith("sample_inputs/model.pt"))
    assert stored(archive({**members, name: b"no pickle at all"}), tmp_path).format == "torch-export"


def test_every_operator_on_the_list_exists_and_none_of_them_is_random_or_touches_files() -> None:
    for name in sorted(NAMES):
        packet = getattr(torch.ops.aten, name)
        for overload in packet.overloads():
            found = operator_of(f"torch.ops.aten.{name}.{overload}")
            if found is None:
                continue
            schema = found._schema  # type: ignore[attr-defined]
            texts = {argument.name for argument in schema.arguments if "str" in str(argument.type)}
            assert not texts & {"filename", "path", "file"}, name
            assert not any(argument.is_out for argument in schema.arguments), (name, overload)
            random = torch.Tag.nondeterministic_seeded in found.tags  # type: ignore[attr-defined]
            assert not random or name in MUST_BE_FALSE or name == "scaled_dot_product_attention", name
            assert not any("Generator" in str(argument.type) for argument in schema.arguments), (name, overload)


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "_operator.attrgetter",
        "math.__loader__",
        "torch.ops.aten.conv2d",
        "torch.ops.aten.conv2d.default.x",
        "torch.ops.quantized.linear.default",
        "torch.ops.aten.__doc__.x",
        "torch.load",
        "builtins.eval",
        "#x:y",
        "",
        "torch.ops.aten.add.out",
        "torch.ops.aten.rand.default",
        "torch.ops.aten.resize_.default",
        "torch.hub.load",
    ],
)
def test_nothing_else_is_an_operator(target: str) -> None:
    assert operator_of(target) is None
