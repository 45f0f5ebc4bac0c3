"""Files that lie, explode, reach out or are broken: each is refused with its place and the way out."""

import io
import json
import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save
from torch import nn

from stillhouse.spec.limits import Limits
from tests.distill.teachers.making import archive, pth, refused

TIMM = {"architecture": "timm/resnet10t", "preprocessing": {"size": [32, 32]}}


def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return timm.create_model("resnet10t", num_classes=3).state_dict()  # type: ignore[no-any-return]


class Bomb:
    def __reduce__(self) -> Any:
        return os.system, ("touch owned",)


def bomb_zip() -> bytes:
    return pth({"weight": torch.ones(1), "evil": Bomb()})


def bomb_old_format() -> bytes:
    out = io.BytesIO()
    torch.save({"evil": Bomb()}, out, _use_new_zipfile_serialization=False)
    return out.getvalue()


@pytest.mark.parametrize("make", [bomb_zip, bomb_old_format, lambda: pickle.dumps(Bomb())])
def test_a_pickle_that_runs_something_is_refused_and_runs_nothing(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make()
    monkeypatch.chdir(tmp_path)
    error = refused(data, tmp_path, **TIMM)
    assert error.errors[0].code in ("unsafe_pickle", "corrupt_tensors")
    assert not (tmp_path / "owned").exists()


def test_a_pickle_names_the_object_it_asks_for_and_the_way_out(tmp_path: Path) -> None:
    error = refused(bomb_zip(), tmp_path, **TIMM)
    assert error.errors[0].code == "unsafe_pickle"
    assert "system" in error.detail
    assert "safetensors" in str(error.hint)


def test_a_whole_module_is_refused(tmp_path: Path) -> None:
    assert refused(pth(nn.Linear(2, 2)), tmp_path, **TIMM).errors[0].code == "unsafe_pickle"


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, [torch.ones(2)], torch.ones(2), "text", {"state_dict": {}}])
def test_a_checkpoint_without_weights_is_refused(content: Any, tmp_path: Path) -> None:
    assert refused(pth(content), tmp_path, **TIMM).errors[0].code == "no_weights"


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")  # is on its way out; files of it stay
@pytest.mark.parametrize(
    ("odd", "said"),
    [
        (lambda: torch.eye(3).to_sparse(), "sparse_coo"),
        (lambda: torch.ones(3, device="meta"), "without values"),
        (lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8), "quantised"),
    ],
)
def test_tensors_that_are_not_plain_numbers_are_named(odd: Any, said: str, tmp_path: Path) -> None:
    error = refused(pth({**state(), "fc.bias": odd()}), tmp_path, **TIMM)
    assert (error.errors[0].pointer, error.errors[0].code) == ("/file/tensors/fc.bias", "wrong_types")
    assert f"'fc.bias' ({said}" in error.detail


def test_a_truncated_checkpoint_is_refused(tmp_path: Path) -> None:
    data = pth(state())
    assert refused(data[: len(data) // 2], tmp_path, **TIMM).errors[0].code == "corrupt_archive"


@pytest.mark.parametrize("cut", [9, 200, -1, -4000])
def test_truncated_safetensors_are_refused(cut: int, tmp_path: Path) -> None:
    assert refused(save(state())[:cut], tmp_path, **TIMM).errors[0].code == "corrupt_tensors"


def lying(header: Any, body: bytes = bytes(16), length: int | None = None) -> bytes:
    """A safetensors file with any header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


ONE = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (lying({"a": ONE, "b": {**ONE, "data_offsets": [4, 12]}}), "overlap"),
        (lying({"a": ONE, "b": {**ONE, "data_offsets": [12, 20]}}, bytes(20)), "hole"),
        (lying({"a": {**ONE, "shape": [3]}}, bytes(8)), "contradicts"),
        (lying({"a": {**ONE, "dtype": "F64"}}, bytes(8)), "contradicts"),
        (lying({"a": {**ONE, "dtype": "OBJECT"}}, bytes(8)), "not what safetensors writes"),
        (lying({"a": {**ONE, "data_offsets": [8, 0]}}, bytes(8)), "overlap"),
        (lying({"a": {**ONE, "shape": [2**40, 2**40]}}, bytes(8)), "larger than any memory"),
        (lying({"a": ONE}, bytes(8), length=3 * 1024**3), "larger than any header may be"),
        (lying({"a": ONE}, bytes(8), length=2**63), "larger than any header may be"),
        (lying({"a": ONE}, bytes(8), length=5000), "longer than the file"),
        (lying({"a": ONE}, bytes(4)), "cut short"),
        (lying({"a": ONE}, bytes(4000)), "cut short or longer"),
        (lying(b"{" * 100_000), "not what safetensors writes"),
        (lying(b'{"a":' * 50_000), "not what safetensors writes"),
        (lying(b'{"\xff\xfe": 1}'), "UTF-8"),
    ],
)
def test_headers_that_lie_are_refused_with_what_is_wrong(data: bytes, said: str, tmp_path: Path) -> None:
    error = refused(data, tmp_path, **TIMM)
    assert error.errors[0].code == "corrupt_tensors"
    assert said in error.detail


def test_nan_in_the_weights_is_refused_by_name(tmp_path: Path) -> None:
    broken = state()
    broken["layer1.0.conv1.weight"][0, 0, 0, 0] = torch.inf
    error = refused(save(broken), tmp_path, **TIMM)
    assert (error.errors[0].pointer, error.errors[0].code) == (
        "/file/tensors/layer1.0.conv1.weight",
        "weights_not_finite",
    )


def test_weights_that_give_nan_are_refused(tmp_path: Path) -> None:
    broken = state()
    broken["bn1.running_var"].fill_(-1)
    assert refused(save(broken), tmp_path, **TIMM).errors[0].code == "outputs_not_finite"


def test_missing_keys_are_listed(tmp_path: Path) -> None:
    broken = state()
    del broken["layer1.0.conv1.weight"], broken["fc.bias"]
    error = refused(save(broken), tmp_path, **TIMM)
    assert [entry.code for entry in error.errors] == ["missing_tensors"]
    assert "layer1.0.conv1.weight" in error.errors[0].detail
    assert "fc.bias" in error.errors[0].detail


def test_wrong_channels_are_refused(tmp_path: Path) -> None:
    two = {"size": [32, 32], "mean": [0.1, 0.2], "std": [0.1, 0.2]}
    error = refused(save(state()), tmp_path, **{**TIMM, "preprocessing": two})
    assert error.errors[0].pointer == "/options/preprocessing/mean"
    gray = {"size": [32, 32], "colour": "luminance"}
    error = refused(save(state()), tmp_path, **{**TIMM, "preprocessing": gray})
    assert error.errors[0].pointer == "/options/preprocessing/colour"


def torchscript() -> bytes:
    """What torch.jit.save writes, without the pickles."""
    return archive(
        {"m/constants.pkl": b"", "m/data.pkl": b"", "m/code/__torch__.py": "def evil(): pass", "m/version": "3"}
    )


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "empty_file"),
        (b"\x1f\x8b" + bytes(30), "unsupported_format"),
        (b"\x89HDF\r\n\x1a\n" + bytes(30), "unsupported_format"),
        (b"GGUF" + bytes(30), "unsupported_format"),
        (b"hello, world, this is text", "unsupported_format"),
        (bytes(100), "unsupported_format"),
        (b"PK\x03\x04" + bytes(40), "corrupt_archive"),
        (torchscript(), "torchscript"),
        (archive({"m/version": "1", "m/serialized_exported_program.json": "{}"}), "unsupported_format"),
        (archive({}), "missing_member"),
        (archive({"readme.txt": "hello"}), "missing_member"),
        (archive({"config.json/": ""}), "missing_member"),
        (archive({"config.json": "{}", "model.safetensors/": ""}), "missing_member"),
        (archive({"a/config.json": "{}", "b/config.json": "{}"}), "several_models"),
        (archive({"../config.json": "{}"}), "unsafe_name"),
        (archive({"config.json": "{}", "/etc/passwd": "x"}), "unsafe_name"),
        (archive({"config.json": "{}", "C:\\x": "x"}), "unsafe_name"),
        (archive({"config.json": "{}"}), "missing_member"),
        (archive({"config.json": "no json"}), "corrupt_config"),
        (archive({"config.json": "[1]"}), "corrupt_config"),
        (archive({"config.json": b"\xff\xfe{"}), "corrupt_config"),
        (archive({"config.json": "[" * 100_000}), "corrupt_config"),
        (archive({"config.json": '{"a":' * 100_000}), "corrupt_config"),
        (archive({"config.json": "{" + " " * 5_000_000 + "}"}), "corrupt_config"),
        (archive({"config.json": "{}", "model.safetensors.index.json": "{}"}), "corrupt_config"),
        (
            archive(
                {"config.json": "{}", "model.safetensors.index.json": '{"weight_map": {"a": "../../x.safetensors"}}'}
            ),
            "missing_member",
        ),
    ],
)
def test_files_that_are_nothing_or_not_whole_are_refused(data: bytes, code: str, tmp_path: Path) -> None:
    assert refused(data, tmp_path).errors[0].code == code


def test_a_symbolic_link_in_the_archive_is_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("model.safetensors")
    link.external_attr = 0o120777 << 16
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as packed:
        packed.writestr("config.json", "{}")
        packed.writestr(link, "/etc/passwd")
    assert refused(out.getvalue(), tmp_path).errors[0].code == "special_member"


def test_a_zip_bomb_is_refused_by_its_directory(tmp_path: Path) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("config.json", "{}")
        packed.writestr("model.safetensors", bytes(64 * 1024**2))
    assert refused(out.getvalue(), tmp_path).errors[0].code == "compression_ratio"


def test_an_archive_that_unfolds_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    data = archive({"config.json": "{}", "model.safetensors": bytes(5000)})
    assert refused(data, tmp_path, Limits(max_expanded_bytes=4000)).errors[0].code == "too_many_bytes"
    assert refused(data, tmp_path, Limits(max_upload_bytes=4000)).errors[0].code == "too_many_bytes"


@pytest.mark.parametrize(
    ("options", "pointer", "code"),
    [
        ({"format": "onnx"}, "/options/format", "format_mismatch"),
        ({"outputs": "logits"}, "/options/outputs", "option_does_not_apply"),
        ({"preprocessing": {"layout": "nhwc"}}, "/options/preprocessing/layout", "option_does_not_apply"),
        (
            {"preprocessing": {"channels": "bgr", "mean": [1, 2], "std": [1, 2, 3]}},
            "/options/preprocessing",
            "preprocessing_misfit",
        ),
    ],
)
def test_an_option_that_does_nothing_or_contradicts_is_refused(
    options: dict[str, Any], pointer: str, code: str, tmp_path: Path
) -> None:
    error = refused(save(state()), tmp_path, **{**TIMM, **options})
    assert (error.errors[0].pointer, error.errors[0].code) == (pointer, code)


def test_checkpoints_bent_at_random_are_refused_or_read_but_never_break_the_reader(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    small = {"fc.weight": torch.ones(3, 2), "fc.bias": torch.ones(3)}
    for made in (save(small), pth(small)):
        for _ in range(15):
            data = bytearray(made)
            for place in draw.integers(0, len(data), 8):
                data[place] = draw.integers(256)
            # A file of five numbers is never a resnet, however it is bent.
            refused(bytes(data), tmp_path, **{**TIMM, "architecture": "torchvision/alexnet", "preprocessing": {}})
